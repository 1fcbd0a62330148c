//! PEM files that the configuration names. What is wrong with one is said with its path, and without any part of it.

use std::fmt::Display;
use std::fs;
use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Several hundred certificates fit.
const FILE_MAX: u64 = 4 << 20;

/// What the file holds.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error| format!("cannot read {}: {error}", path.display());
    let about = fs::metadata(path).map_err(failed)?;
    if !about.is_file() {
        return Err(format!("{} is not a regular file", path.display()));
    }
    if about.len() > FILE_MAX {
        return Err(format!("{} has {} bytes, more than {FILE_MAX}", path.display(), about.len()));
    }
    fs::read(path).map_err(failed)
}

/// At least one certificate.
pub(crate) fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(lacks(path, "certificates", &"there is none")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(lacks(path, "certificates", &error)),
    }
}

/// Certificates that others may go back to.
pub(crate) fn roots(pem: &[u8], path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, path)? {
        roots.add(certificate).map_err(|error| lacks(path, "root certificates", &error))?;
    }
    Ok(roots)
}

/// The first private key.
pub(crate) fn private_key(pem: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| lacks(path, "private key", &error))
}

/// That the file holds something else.
pub(crate) fn lacks(path: &Path, what: &str, reason: &dyn Display) -> String {
    format!("{} holds no {what}: {reason}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_with_the_path_and_once() {
        let missing = read(Path::new("/nowhere/at.pem")).unwrap_err();
        assert_eq!(missing, "cannot read /nowhere/at.pem: No such file or directory (os error 2)");
        assert_eq!(read(Path::new("/dev/null")).unwrap_err(), "/dev/null is not a regular file");
        let path = Path::new("a.pem");
        assert_eq!(certificates(b"sesame", path).unwrap_err(), "a.pem holds no certificates: there is none");
        let wrong = private_key(b"sesame", path).unwrap_err();
        assert!(wrong.starts_with("a.pem holds no private key: ") && !wrong.contains("sesame"), "{wrong}");
    }
}
