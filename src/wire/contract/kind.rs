//! The types of event, and what each of them holds.

use super::Source;

macro_rules! kinds {
    ($($name:ident $text:literal $source:ident [$($field:literal)*]),* $(,)?) => {
        /// The type of an event.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Kind { $($name),* }

        impl Kind {
            pub(super) const ALL: &'static [Self] = &[$(Self::$name),*];

            pub(super) fn parse(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$name),)*
                    _ => None,
                }
            }

            pub(super) fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// The routing key that it belongs under.
            pub(super) fn source(self) -> Source {
                match self { $(Self::$name => Source::$source),* }
            }

            /// Its fields beside `v`, `type`, `id` and `ts`. Any other is ignored, whatever it holds.
            pub(super) fn fields(self) -> &'static [&'static str] {
                match self { $(Self::$name => &[$($field),*]),* }
            }
        }
    };
}

kinds! {
    Status "client.status" Client ["user_id" "device_id" "presence" "status_msg"],
    Idle "client.idle" Client ["user_id" "device_id" "idle_ms"],
    Device "client.device" Client ["user_id" "device_id" "device_type"],
    Activity "client.activity" Client ["user_id" "device_id" "set_presence"],
    Poll "client.poll" Client ["user_id" "device_id" "action" "lease_ms" "edge"],
    List "client.list" Client ["user_id" "add" "remove"],
    Answer "client.answer" Client ["user_id" "observer" "allow"],
    Transaction "federation.transaction" Federation ["origin" "txn_id" "origin_server_ts" "edus" "pdus"],
    Heard "federation.heard" Federation ["origin"],
    Receipt "federation.receipt" Federation ["destination" "txn_id" "outcome" "retry_after_ms"],
}
