//! What lies on `presence.outbound`: JSON, so that a homeserver's own edge may take it instead of rollcall's sender.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::{ServerName, Timestamp};

/// One signed-to-be transaction, ready to be sent until `not_after`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OutboundMessage {
    /// The version of this contract: 1.
    pub v: u8,
    /// The peer.
    pub destination: ServerName,
    /// The federation transaction ID. Never used for other bytes.
    pub txn_id: Box<str>,
    /// After this moment a sender drops it unsent and says `expired`. Milliseconds since the Unix epoch.
    pub not_after: Timestamp,
    /// The transaction's body: canonical JSON, which is signed and sent byte for byte.
    pub body: Box<RawValue>,
}
