//! What lies on the internal queues, and the JSON that leaves on the others.

use rollcall::wire::envelope::{Packet, decode, encode};
use rollcall::wire::outbound::OutboundMessage;
use rollcall::wire::update::UpdateMessage;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub fn check(data: &[u8]) {
    same_again(data);
    same_json_again::<UpdateMessage>(data);
    same_json_again::<OutboundMessage>(data);
}

/// The packet, if it is one, which is the same when it was written and read again.
pub fn same_again(data: &[u8]) -> Option<Packet> {
    let packet: Packet = decode(data).ok()?;
    assert_eq!(decode::<Packet>(&encode(&packet)).as_ref(), Ok(&packet));
    Some(packet)
}

fn same_json_again<T: Serialize + DeserializeOwned>(data: &[u8]) {
    let Ok(message) = serde_json::from_slice::<T>(data) else { return };
    let text = serde_json::to_string(&message).expect("it was JSON");
    let again: T = serde_json::from_str(&text).expect("what was written is read");
    assert_eq!(serde_json::to_string(&again).expect("it was JSON"), text);
}
