//! What a body takes of memory when it is read as a tree: many times its length, if whoever wrote it meant harm.

/// An object with up to eleven fields: a node of a `BTreeMap` of texts and values.
const OBJECT: usize = 640;
/// Another field, or element: its part of a node that is half full, or of an array that has grown.
const VALUE: usize = 112;

/// Bytes that suffice for the trees of `body`, JSON or not: checking a signature makes one out of another.
pub(super) fn of_trees(body: &[u8]) -> usize {
    let (mut objects, mut values, mut rest) = (0_usize, 0_usize, body.iter());
    while let Some(byte) = rest.next() {
        match byte {
            b'{' => objects += 1,
            b'[' | b',' => values += 1,
            b'"' => skip_text(&mut rest),
            _ => {}
        }
    }
    2 * (objects * OBJECT + values * VALUE + body.len())
}

fn skip_text(rest: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(rest.next()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_members_weigh_many_times_their_length() {
        let objects = format!("[{}]", vec![r#"{"":0}"#; 100_000].join(","));
        assert!(of_trees(objects.as_bytes()) > 100_000 * (640 + 32) + 100_000 * 640, "one of them beside the other");
        let numbers = format!("[{}]", vec!["0"; 100_000].join(","));
        assert!(of_trees(numbers.as_bytes()) > 2 * 100_000 * 32 * 2, "an array may have room for twice as many");
        let fields: Vec<_> = (0..100_000).map(|n| format!(r#""{n}":0"#)).collect();
        assert!(of_trees(format!("{{{}}}", fields.join(",")).as_bytes()) > 2 * 100_000 * (24 + 8 + 32) * 3 / 2);
    }

    #[test]
    fn texts_weigh_what_they_are_long() {
        let body = format!(r#"{{"a":"{}\"[{{"}}"#, "[,{".repeat(1000));
        assert_eq!(of_trees(body.as_bytes()), 2 * (640 + body.len()));
        assert_eq!(of_trees(br#""\"#), 4, "broken off");
    }

    /// What a server of ordinary size says weighs no more than may be checked at once.
    #[test]
    fn a_full_transaction_is_no_burden() {
        let push =
            r#"{"user_id":"@somebody:b.example","presence":"online","last_active_ago":12345,"currently_active":true}"#;
        let edu = format!(r#"{{"edu_type":"m.presence","content":{{"push":[{}]}}}}"#, vec![push; 500].join(","));
        let body = format!(r#"{{"edus":[{}]}}"#, vec![edu; 100].join(","));
        assert!(of_trees(body.as_bytes()) < super::super::MAX_CHECKING);
    }
}
