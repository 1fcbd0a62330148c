//! Reminders and digests as the `rollcall` object says them; docs/wire.md has the fields.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::core::digest::BUCKETS;
use crate::core::signal::{Have, Reminder, Summary};
use crate::model::Serial;

/// Longest name of a reminder, bytes.
pub(super) const ID_BYTES: usize = 64;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ReminderObject {
    id: Box<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mine: Option<SummaryObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    yours: Option<SummaryObject>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SummaryObject {
    as_of: (u64, u64),
    count: u64,
    /// 32 hexadecimal digits.
    digest: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct HaveObject {
    as_of: (u64, u64),
    /// 256 numbers of 8 bytes, little-endian, as unpadded base64.
    buckets: String,
}

/// A number of a transaction as JSON has it.
pub(super) fn number(serial: Serial) -> (u64, u64) {
    (serial.epoch, serial.counter)
}

/// See [`number`].
pub(super) fn serial((epoch, counter): (u64, u64)) -> Serial {
    Serial { epoch, counter }
}

impl From<&Reminder> for ReminderObject {
    fn from(reminder: &Reminder) -> Self {
        let Reminder { id, mine, yours } = reminder;
        let object = |summary: &Summary| SummaryObject {
            as_of: number(summary.as_of),
            count: summary.count,
            digest: format!("{:032x}", summary.digest),
        };
        Self { id: id.clone(), mine: mine.as_ref().map(object), yours: yours.as_ref().map(object) }
    }
}

impl ReminderObject {
    /// `None`: not as it should be.
    pub(super) fn read(&self) -> Option<Reminder> {
        let mine = self.mine.as_ref().map(SummaryObject::read);
        let yours = self.yours.as_ref().map(SummaryObject::read);
        let whole = is_id(&self.id) && mine != Some(None) && yours != Some(None);
        whole.then(|| Reminder { id: self.id.clone(), mine: mine.flatten(), yours: yours.flatten() })
    }
}

impl SummaryObject {
    fn read(&self) -> Option<Summary> {
        let digits = self.digest.len() == 32 && self.digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        let digest = digits.then(|| u128::from_str_radix(&self.digest, 16).ok())??;
        Some(Summary { as_of: serial(self.as_of), count: self.count, digest })
    }
}

impl From<&Have> for HaveObject {
    fn from(have: &Have) -> Self {
        let bytes: Vec<u8> = have.buckets.iter().flat_map(|bucket| bucket.to_le_bytes()).collect();
        Self { as_of: number(have.as_of), buckets: STANDARD_NO_PAD.encode(bytes) }
    }
}

impl HaveObject {
    /// `None`: not as it should be.
    pub(super) fn read(&self) -> Option<Have> {
        if self.buckets.len() > 4 * BUCKETS * 8 / 3 + 4 {
            return None;
        }
        let bytes = STANDARD_NO_PAD.decode(&self.buckets).ok().filter(|bytes| bytes.len() == BUCKETS * 8)?;
        let (numbers, _) = bytes.as_chunks::<8>();
        let buckets = numbers.iter().map(|number| u64::from_le_bytes(*number)).collect();
        Some(Have { as_of: serial(self.as_of), buckets })
    }
}

/// Whether a reminder may bear this name.
pub(super) fn is_id(id: &str) -> bool {
    (1..=ID_BYTES).contains(&id.len())
}
