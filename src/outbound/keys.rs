//! The signing keys that speak for the local server, in the file formats of Synapse, one key a line:
//!
//! - `ed25519 <version> <unpadded base64 seed>`: a key that is in use, the first one signs;
//! - `ed25519 <version> <expired, ms since 1970> <unpadded base64 public key>`: one that was. It is published, so that what it once
//!   signed can be checked. (Synapse keeps these lines in a file of their own.)

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ruma::CanonicalJsonObject;
use ruma::signatures::{Ed25519KeyPair, JsonError, sign_json};
use serde_json::json;

use crate::clock::{Clock as _, SystemClock};
use crate::model::{ServerName, Timestamp};

/// A PKCS#8 version 1 document holds an Ed25519 seed behind these bytes (RFC 8410, section 7).
const PKCS8_V1: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// Where the seed stands in the PKCS#8 documents that ruma generates (versions 1 and 2 agree on it).
const PKCS8_SEED: std::ops::Range<usize> = 16..48;
/// Keys in one file at most.
const MAX_KEYS: usize = 32;
/// A key file is a few hundred bytes.
const MAX_FILE: u64 = 64 << 10;
/// September 2001: a time before that was meant in seconds.
const MIN_EXPIRED: Timestamp = Timestamp(1_000_000_000_000);
/// Canonical JSON has no greater numbers (Matrix spec, appendices).
const MAX_CANONICAL: u64 = (1 << 53) - 1;
/// Unpadded when written, either way when read.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Why there are no keys. Nothing that this prints holds a part of a key; the configuration's key, `signing_key`, is for whoever
/// reads it to name.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no such file.
    #[error("there is no file {file}: correct the path, or make a key with `rollcall key generate {file}`", file = path.display())]
    Missing {
        /// Which.
        path: PathBuf,
    },
    /// The file cannot be read or made.
    #[error("cannot {verb} {}: {reason}", path.display())]
    File {
        /// What was tried.
        verb: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// The file as a whole is something else.
    #[error("{} is no key file: {reason}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A line holds something else.
    #[error("{}, line {line}: {reason}", path.display())]
    Line {
        /// Of which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A version may hold letters, digits and underscores.
    #[error("{0:?} is no key version: 1 to 64 of a-z, A-Z, 0-9 and _")]
    Version(String),
}

/// One Ed25519 key and its name.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    seed: [u8; 32],
}

impl SigningKey {
    /// A new key from the system's randomness, named `ed25519:<version>`.
    pub fn generate(version: &str) -> Result<Self, KeyError> {
        let document = Ed25519KeyPair::generate();
        let seed = document[PKCS8_SEED].try_into().expect("the range is 32 bytes long");
        Self::from_seed(version, seed)
    }

    /// The key that grows from `seed`.
    pub fn from_seed(version: &str, seed: [u8; 32]) -> Result<Self, KeyError> {
        check_version(version)?;
        let document: Vec<u8> = PKCS8_V1.into_iter().chain(seed).collect();
        let pair = Ed25519KeyPair::from_der(&document, version.into()).expect("every 32 bytes are an Ed25519 seed");
        Ok(Self { pair, seed })
    }

    /// `ed25519:<version>`.
    pub fn id(&self) -> String {
        format!("ed25519:{}", self.pair.version())
    }

    /// The public half, unpadded base64.
    pub fn public_base64(&self) -> String {
        BASE64.encode(self.pair.public_key())
    }

    /// Adds the signature of `server` by this key to `object` (Matrix spec, appendices, signing JSON).
    pub fn sign(&self, server: &ServerName, object: &mut CanonicalJsonObject) -> Result<(), JsonError> {
        sign_json(server.as_str(), &self.pair, object)
    }

    /// What signs.
    pub(crate) fn pair(&self) -> &Ed25519KeyPair {
        &self.pair
    }

    /// The line of the key file. It is the secret.
    fn line(&self) -> String {
        format!("ed25519 {} {}\n", self.pair.version(), BASE64.encode(self.seed))
    }

    fn parse(line: &str) -> Result<Self, String> {
        let mut words = line.split_ascii_whitespace();
        let (Some(algorithm), Some(version), Some(seed), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err("expected three words: ed25519, a version, a seed in base64".into());
        };
        check_algorithm(algorithm)?;
        let seed = BASE64.decode(seed).map_err(|_| "the seed is not base64")?;
        let seed = seed.try_into().map_err(|seed: Vec<u8>| format!("the seed has {} bytes, not 32", seed.len()))?;
        Self::from_seed(version, seed).map_err(|error| error.to_string())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.id())
    }
}

/// The public half of a key that is out of use.
#[derive(Debug, PartialEq, Eq)]
struct OldKey {
    id: String,
    public: String,
    expired: Timestamp,
}

impl OldKey {
    fn parse(line: &str, now: Timestamp) -> Result<Self, String> {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let [algorithm, version, expired, public] = words[..] else { return Err("expected four words".into()) };
        check_algorithm(algorithm)?;
        check_version(version).map_err(|error| error.to_string())?;
        let expired = Timestamp(expired.parse().map_err(|_| "the third word is no time in ms since 1970")?);
        if expired < MIN_EXPIRED {
            return Err(format!(
                "the key expired at {}: that is no time in ms since 1970, perhaps one in seconds",
                expired.0
            ));
        }
        if expired > now {
            return Err(format!(
                "the key is to expire at {}, in the future: what is in use yet has no time",
                expired.0
            ));
        }
        let public = BASE64.decode(public).ok().filter(|key| key.len() == 32);
        let public = BASE64.encode(public.ok_or("the public key is not base64 of 32 bytes")?);
        Ok(Self { id: format!("ed25519:{version}"), public, expired })
    }
}

/// Whether others than the owner of a key file may do something with it.
pub fn is_open_to_others(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|about| about.permissions().mode() & 0o077 != 0)
}

/// All keys of the local server; at least one in use.
#[derive(Debug)]
pub struct SigningKeys {
    keys: Vec<SigningKey>,
    old: Vec<OldKey>,
}

impl SigningKeys {
    /// One key.
    pub fn single(key: SigningKey) -> Self {
        Self { keys: vec![key], old: Vec::new() }
    }

    /// The key that signs requests.
    pub fn current(&self) -> &SigningKey {
        &self.keys[0]
    }

    /// Reads a key file.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let about = fs::metadata(path).map_err(|reason| unread(path, reason))?;
        if !about.is_file() {
            return Err(content(path, "it is not a regular file"));
        }
        if about.len() > MAX_FILE {
            return Err(content(path, format!("it has {} bytes, more than {MAX_FILE}", about.len())));
        }
        let text = fs::read_to_string(path).map_err(|reason| unread(path, reason))?;
        Self::parse(&text, path, SystemClock.now())
    }

    /// Reads a key file, or makes one: mode 0600, folders as needed (0700), in one step, so that of two processes that start at
    /// once both end up with the same key.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        match Self::load(path) {
            Err(KeyError::Missing { .. }) => {}
            done => return done,
        }
        let version = format!("a_{}", std::iter::repeat_with(fastrand::alphanumeric).take(6).collect::<String>());
        let line = SigningKey::generate(&version)?.line();
        match create(path, &line) {
            Ok(()) => tracing::info!(path = %path.display(), version, "made a signing key"),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(reason) => return Err(KeyError::File { verb: "make", path: path.into(), reason }),
        }
        Self::load(path)
    }

    fn parse(text: &str, path: &Path, now: Timestamp) -> Result<Self, KeyError> {
        let wrong = |line, reason| KeyError::Line { path: path.into(), line, reason };
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let (mut keys, mut old, mut ids) = (Vec::new(), Vec::new(), HashSet::new());
        for (index, line) in lines {
            let read = match line.split_ascii_whitespace().count() {
                4 => OldKey::parse(line, now).map(|key| {
                    let id = key.id.clone();
                    old.push(key);
                    id
                }),
                _ => SigningKey::parse(line).map(|key| {
                    let id = key.id();
                    keys.push(key);
                    id
                }),
            };
            let id = read.map_err(|reason| wrong(index + 1, reason))?;
            if !ids.insert(id.clone()) {
                return Err(wrong(index + 1, format!("{id} is there twice")));
            }
        }
        match (keys.len(), ids.len()) {
            (0, _) => Err(content(path, "no key in it that is in use")),
            (_, 1..=MAX_KEYS) => Ok(Self { keys, old }),
            (_, n) => Err(content(path, format!("{n} keys, more than {MAX_KEYS}"))),
        }
    }
}

fn check_algorithm(algorithm: &str) -> Result<(), String> {
    if algorithm == "ed25519" { Ok(()) } else { Err(format!("the algorithm is {algorithm:?}, not ed25519")) }
}

fn check_version(version: &str) -> Result<(), KeyError> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let is_one = (1..=64).contains(&version.len()) && version.bytes().all(word);
    if is_one { Ok(()) } else { Err(KeyError::Version(version.chars().take(64).collect())) }
}

fn unread(path: &Path, reason: io::Error) -> KeyError {
    match reason.kind() {
        io::ErrorKind::NotFound => KeyError::Missing { path: path.into() },
        _ => KeyError::File { verb: "read", path: path.into(), reason },
    }
}

fn content(path: &Path, reason: impl Into<String>) -> KeyError {
    KeyError::Content { path: path.into(), reason: reason.into() }
}

/// Writes a whole file under another name, then links it to its own: it appears complete or not at all, and never replaces one.
fn create(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let draft = folder.join(format!(".signing-key-{:016x}", fastrand::u64(..)));
    let linked = write_private(&draft, text).and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft)?;
    linked?;
    File::open(folder)?.sync_all()
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The document of `GET /_matrix/key/v2/server`: every key, signed with every key that is in use, good for `valid_for` from `now` on.
pub fn server_keys_json(server: &ServerName, keys: &SigningKeys, now: Timestamp, valid_for: Duration) -> String {
    let valid_for = u64::try_from(valid_for.as_millis()).unwrap_or(u64::MAX);
    let verify_keys: serde_json::Map<_, _> =
        keys.keys.iter().map(|key| (key.id(), json!({ "key": key.public_base64() }))).collect();
    let old_verify_keys: serde_json::Map<_, _> =
        keys.old.iter().map(|key| (key.id.clone(), json!({ "key": key.public, "expired_ts": key.expired }))).collect();
    let document = json!({
        "server_name": server,
        "verify_keys": verify_keys,
        "old_verify_keys": old_verify_keys,
        "valid_until_ts": now.plus(valid_for).0.min(MAX_CANONICAL),
    });
    let mut document: CanonicalJsonObject =
        serde_json::from_value(document).expect("texts and small numbers are canonical JSON");
    for key in &keys.keys {
        key.sign(server, &mut document).expect("an object without signatures can be signed");
    }
    serde_json::to_string(&document).expect("canonical JSON is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_400_000_000);

    #[test]
    fn debug_shows_no_secret() {
        let key = SigningKey::generate("a_1").unwrap();
        let shown = format!("{key:?} {:?}", SigningKeys::single(SigningKey::parse(&key.line()).unwrap()));
        assert_eq!(shown, "SigningKey(ed25519:a_1) SigningKeys { keys: [SigningKey(ed25519:a_1)], old: [] }");
    }

    #[test]
    fn bad_lines_say_what_is_wrong_and_never_the_seed() {
        let path = Path::new("k");
        for (text, part) in [
            ("", "k is no key file: no key in it that is in use"),
            ("ed25519 a_1", "k, line 1: expected three words"),
            ("ed25519 a_1 1795300000000 SECR", "the public key is not base64 of 32 bytes"),
            ("ed25519 a_1 SECRET YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1", "no time in ms"),
            ("ed25519 a_1 1795300000 SECR", "k, line 1: the key expired at 1795300000: that is no time in ms"),
            ("\ned25519 a_1 1795400000001 SECR", "k, line 2: the key is to expire at 1795400000001, in the future"),
            ("ed25519 a_1 18446744073709551615 SECR", "in the future"),
            ("ed25519 a_1 1795400000000 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1", "no key in it that is in use"),
            ("\nrsa a_1 SECRET", "line 2: the algorithm is \"rsa\""),
            ("ed25519 a_1 SECRET!", "not base64"),
            ("ed25519 a_1 SECR", "3 bytes, not 32"),
            ("ed25519 a:1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1", "no key version"),
        ] {
            let error = SigningKeys::parse(text, path, NOW).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
            assert!(!error.contains("SECR"), "{error}");
        }
    }
}
