//! A set of promised statuses in few bytes: both sides compute it, and where the sums are equal both hold the same.
//!
//! docs/wire.md has the encoding with test vectors. The sum is commutative, so that neither order nor history matters, and one
//! status costs one addition.

use sha2::{Digest as _, Sha256};
use xxhash_rust::xxh3::xxh3_64;

use super::signal::{Have, Summary};
use crate::model::{Serial, Status, UserId};

/// Buckets of the second level.
pub const BUCKETS: usize = 256;
/// Device types that count: a receiver keeps no more.
const TYPES: usize = 8;
/// In place of a length: there is no message.
const ABSENT: u32 = u32::MAX;

/// The weight of one status in a sum: the first 128 bits of SHA-256, big-endian. Ages do not count: they change by themselves.
pub fn weight(user: &UserId, status: &Status) -> u128 {
    let mut hash = Sha256::new();
    field(&mut hash, user.as_str());
    field(&mut hash, status.presence.as_str());
    match &status.status_msg {
        Some(message) => field(&mut hash, message),
        None => hash.update(ABSENT.to_le_bytes()),
    }
    hash.update([u8::from(status.currently_active)]);
    for kind in status.device_types.iter().take(TYPES) {
        field(&mut hash, kind);
    }
    let hash: [u8; 32] = hash.finalize().into();
    let (first, _) = hash.split_at(16);
    u128::from_be_bytes(first.try_into().expect("16 bytes"))
}

fn field(hash: &mut Sha256, text: &str) {
    let length = u32::try_from(text.len()).unwrap_or(ABSENT - 1);
    hash.update(length.to_le_bytes());
    hash.update(text.as_bytes());
}

/// Which bucket a user belongs to: the low byte of xxh3-64 (seed 0) of the user ID.
pub fn bucket_of(user: &UserId) -> u8 {
    (xxh3_64(user.as_str().as_bytes()) & 0xff) as u8
}

/// How many statuses, and the sum of their weights modulo 2^128.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sum {
    pub(super) count: u64,
    pub(super) digest: u128,
}

impl Sum {
    pub(super) fn add(&mut self, weight: u128) {
        self.count += 1;
        self.digest = self.digest.wrapping_add(weight);
    }

    /// As the reminder says it.
    pub(super) fn as_of(self, as_of: Serial) -> Summary {
        Summary { as_of, count: self.count, digest: self.digest }
    }

    pub(super) fn is(self, summary: &Summary) -> bool {
        (self.count, self.digest) == (summary.count, summary.digest)
    }
}

/// The low 64 bits of the sums of each bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Buckets(Vec<u64>);

impl Default for Buckets {
    fn default() -> Self {
        Self(vec![0; BUCKETS])
    }
}

impl Buckets {
    pub(super) fn add(&mut self, user: &UserId, weight: u128) {
        let bucket = &mut self.0[usize::from(bucket_of(user))];
        *bucket = bucket.wrapping_add(weight as u64);
    }

    /// As the answer to a digest that did not match says it.
    pub(super) fn into_have(self, as_of: Serial) -> Have {
        Have { as_of, buckets: self.0 }
    }

    /// The buckets that are not the same there.
    pub(super) fn differing(&self, have: &Have) -> Vec<u8> {
        let numbered = (0..=u8::MAX).zip(self.0.iter().zip(&have.buckets));
        numbered.filter(|(_, (ours, theirs))| ours != theirs).map(|(number, _)| number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Presence, Timestamp};

    fn user(text: &str) -> UserId {
        UserId::parse(text).unwrap()
    }

    fn full() -> Status {
        Status {
            presence: Presence::Online,
            status_msg: Some("cupcakes".into()),
            last_active: Timestamp(7),
            currently_active: true,
            device_types: ["mobile".into(), "desktop".into()].into(),
        }
    }

    /// The vectors of docs/wire.md.
    #[test]
    fn vectors() {
        let plain = Status { presence: Presence::Offline, ..Status::default() };
        let (john, alice) = (user("@john:a.example"), user("@alice:b.example"));
        let got = [weight(&john, &full()), weight(&alice, &plain)].map(|weight| format!("{weight:032x}"));
        assert_eq!(got, ["bb3bd66dc6c105ffd387670f84623f4f", "a62602c44adcdcfce743d81730fd3838"]);
        assert_eq!([bucket_of(&john), bucket_of(&alice)], [65, 74]);
    }

    #[test]
    fn only_what_is_shown_counts() {
        let john = user("@john:a.example");
        let older = Status { last_active: Timestamp(3), ..full() };
        assert_eq!(weight(&john, &full()), weight(&john, &older));
        let silent = Status { status_msg: None, ..full() };
        let empty = Status { status_msg: Some("".into()), ..full() };
        assert_ne!(weight(&john, &silent), weight(&john, &empty));
        assert_ne!(weight(&john, &full()), weight(&user("@john:b.example"), &full()));
    }

    #[test]
    fn buckets_tell_where_the_difference_is() {
        let users: Vec<UserId> = (0..2_000).map(|n| user(&format!("@u{n}:a.example"))).collect();
        let fill = |odd: Option<&UserId>| {
            let mut buckets = Buckets::default();
            for user in &users {
                let message = (odd == Some(user)).then(|| "other".into());
                buckets.add(user, weight(user, &Status { status_msg: message, ..full() }));
            }
            buckets
        };
        let have = fill(Some(&users[77])).into_have(Serial::default());
        assert_eq!(fill(None).differing(&have), [bucket_of(&users[77])]);
        assert!(fill(Some(&users[77])).differing(&have).is_empty());
    }
}
