//! Signing keys and what is signed with them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use rollcall::model::Timestamp;
use rollcall::outbound::keys::{SigningKeys, server_keys_json};
use rollcall::outbound::sign::verify_own;
use ruma::CanonicalJsonObject;
use ruma::serde::Base64;
use tempfile::tempdir;

use super::name;

/// The key of the Matrix spec's cryptographic test vectors, as Synapse writes it.
const SPEC_KEY: &str = "ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1\n";
const SPEC_PUBLIC: &str = "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI";

fn load(text: &str) -> SigningKeys {
    let folder = tempdir().unwrap();
    let path = folder.path().join("signing.key");
    fs::write(&path, text).unwrap();
    SigningKeys::load(&path).unwrap()
}

/// Matrix spec, appendices, cryptographic test vectors, JSON signing.
#[test]
fn the_spec_s_vectors_hold() {
    let keys = load(SPEC_KEY);
    assert_eq!(keys.current().public_base64(), SPEC_PUBLIC);
    for (object, signature) in [
        ("{}", "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"),
        (
            r#"{"two":"Two","one":1}"#,
            "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw",
        ),
    ] {
        let mut object: CanonicalJsonObject = serde_json::from_str(object).unwrap();
        keys.current().sign(&name("domain"), &mut object).unwrap();
        let signed = serde_json::to_value(&object).unwrap();
        assert_eq!(signed["signatures"]["domain"]["ed25519:1"], signature);
    }
}

#[test]
fn a_key_is_made_once_and_found_again() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("new/folder/signing.key");
    let made = SigningKeys::load_or_create(&path).unwrap();
    let found = SigningKeys::load_or_create(&path).unwrap();
    assert_eq!(made.current().public_base64(), found.current().public_base64());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&path).unwrap();
    let words: Vec<_> = text.split_ascii_whitespace().collect();
    assert_eq!((words.len(), words[0], words[2].len()), (3, "ed25519", 43));
    assert_eq!(made.current().id(), format!("ed25519:{}", words[1]));
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft stays behind");
}

#[test]
fn those_who_start_at_once_get_one_key() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("signing.key");
    let keys: Vec<_> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..8).map(|_| scope.spawn(|| SigningKeys::load_or_create(&path).unwrap())).collect();
        started.into_iter().map(|thread| thread.join().unwrap().current().public_base64()).collect()
    });
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
}

#[test]
fn the_key_document_is_signed_with_every_key() {
    let keys = load(&format!("{SPEC_KEY}ed25519 old {}\n", "A".repeat(43)));
    let document = server_keys_json(&name("a.example"), &keys, Timestamp(1_000), Duration::from_secs(60));
    let object: CanonicalJsonObject = serde_json::from_str(&document).unwrap();
    let value = serde_json::to_value(&object).unwrap();
    assert_eq!(value["valid_until_ts"], 61_000);
    assert_eq!(value["verify_keys"]["ed25519:1"]["key"], SPEC_PUBLIC);
    for id in ["ed25519:1", "ed25519:old"] {
        let public = Base64::parse(value["verify_keys"][id]["key"].as_str().unwrap()).unwrap();
        verify_own(&name("a.example"), object.clone(), [(id.to_owned(), public)].into()).unwrap();
    }
}

#[test]
fn a_key_that_is_out_of_use_is_published_with_its_end_and_signs_nothing() {
    let keys = load(&format!("{SPEC_KEY}ed25519 a_0 1795300000000 {SPEC_PUBLIC}\n"));
    let document = server_keys_json(&name("a.example"), &keys, Timestamp(1_000), Duration::from_secs(60));
    let value: serde_json::Value = serde_json::from_str(&document).unwrap();
    let old = serde_json::json!({ "ed25519:a_0": { "key": SPEC_PUBLIC, "expired_ts": 1_795_300_000_000_u64 } });
    assert_eq!(value["old_verify_keys"], old);
    assert_eq!(value["verify_keys"].as_object().unwrap().len(), 1);
    assert_eq!(value["signatures"]["a.example"].as_object().unwrap().len(), 1);
}
