//! Secrets that stand in files of their own.

use std::fs;
use std::path::Path;

use figment::value::Value;

/// A token or some addresses are a few hundred bytes.
const FILE_MAX: u64 = 64 << 10;

/// What a file says: a text, or a list of them if it has several lines. Ends of lines do not count, nor do empty lines. No error
/// holds any of it.
pub(super) fn secret(path: &Path) -> Result<Value, String> {
    let length = fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?.len();
    if length > FILE_MAX {
        return Err(format!("has {length} bytes, more than {FILE_MAX}"));
    }
    let text = fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines[..] {
        [] => Err("is empty".into()),
        [one] => Ok(one.into()),
        _ => Ok(lines.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_texts() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let read = |text: &str| {
            fs::write(&file, text).unwrap();
            secret(&file)
        };
        assert_eq!(read("one\n"), Ok("one".into()));
        assert_eq!(read("one\r\n\n two\n"), Ok(vec!["one", "two"].into()));
        assert_eq!(read("\n"), Err("is empty".into()));
        assert!(read(&"x".repeat(70_000)).unwrap_err().contains("more than 65536"));
        assert!(secret(Path::new("/nowhere")).unwrap_err().starts_with("cannot be read"));
    }
}
