//! Whom a connection trusts and how it shows itself: the host's certificates,
//! those of one registry, a pair of our own.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// Where distributions keep the certificates they trust.
const CERTIFICATE_FILES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What holds for one registry.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    /// Of authorities that are trusted besides the host's.
    certificates: Vec<Certificate<'static>>,
    pair: Option<ClientCert>,
    /// Whether the server's certificate is checked at all.
    pub(crate) verify: bool,
}

impl Trust {
    /// What `directory`, or the first directory that is for this host, says.
    pub(crate) fn read(host: &str, directory: Option<&Path>, verify: bool) -> Result<Self> {
        let mut trust = Self { certificates: Vec::new(), pair: None, verify };
        let directory = match directory {
            Some(directory) => {
                ensure!(directory.is_dir(), "{} is not a directory", directory.display());
                Some(directory.to_owned())
            }
            None => host_directories(host).into_iter().find(|path| path.is_dir()),
        };
        if let Some(directory) = directory {
            trust
                .read_directory(&directory)
                .with_context(|| format!("read certificates in {}", directory.display()))?;
        }
        Ok(trust)
    }

    /// Adds what other settings say.
    pub(crate) fn add(
        &mut self,
        authorities: &[PathBuf],
        pair: Option<&(PathBuf, PathBuf)>,
    ) -> Result<()> {
        for path in authorities {
            self.certificates.extend(read_certificates(path)?);
        }
        if let Some((certificate, key)) = pair {
            self.pair = Some(read_pair(certificate, key)?);
        }
        Ok(())
    }

    fn read_directory(&mut self, directory: &Path) -> Result<()> {
        let mut paths: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            paths.push(entry?.path());
        }
        paths.sort();
        for path in &paths {
            let extension = path.extension().and_then(|extension| extension.to_str());
            match extension {
                Some("crt") => self.certificates.extend(read_certificates(path)?),
                Some("cert") => {
                    let key = path.with_extension("key");
                    ensure!(key.is_file(), "{} has no {}", path.display(), key.display());
                    self.pair = Some(read_pair(path, &key)?);
                }
                Some("key") => {
                    let certificate = path.with_extension("cert");
                    ensure!(
                        certificate.is_file(),
                        "{} has no {}",
                        path.display(),
                        certificate.display()
                    );
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// For connections to the registry itself.
    pub(crate) fn own(&self) -> Result<TlsConfig> {
        Ok(TlsConfig::builder()
            .root_certs(self.roots()?)
            .client_cert(self.pair.clone())
            .disable_verification(!self.verify)
            .build())
    }

    /// For connections to where the registry sends us: our own pair is not for them.
    pub(crate) fn others(&self) -> Result<TlsConfig> {
        Self { pair: None, ..self.clone() }.own()
    }

    fn roots(&self) -> Result<RootCerts> {
        if !self.verify {
            return Ok(RootCerts::WebPki);
        }
        let mut certificates = host_certificates()?;
        if certificates.is_empty() && self.certificates.is_empty() {
            return Ok(RootCerts::WebPki);
        }
        certificates.extend(self.certificates.iter().cloned());
        Ok(RootCerts::from(certificates))
    }
}

/// Where the certificates of one host may lie, the first that exists counts.
fn host_directories(host: &str) -> Vec<PathBuf> {
    let home = std::env::var_os("XDG_CONFIG_HOME")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
    home.map(|home| home.join("containers/certs.d"))
        .into_iter()
        .chain(
            ["/etc/containers/certs.d", "/etc/docker/certs.d", "/etc/containerd/certs.d"]
                .map(PathBuf::from),
        )
        .map(|directory| directory.join(host))
        .collect()
}

/// The host's certificates, read once: a directory of them has hundreds of files.
fn host_certificates() -> Result<Vec<Certificate<'static>>> {
    static READ: OnceLock<Vec<Certificate<'static>>> = OnceLock::new();
    if let Some(certificates) = READ.get() {
        return Ok(certificates.clone());
    }
    let certificates = read_host_certificates()?;
    Ok(READ.get_or_init(|| certificates).clone())
}

/// None where the host has none.
fn read_host_certificates() -> Result<Vec<Certificate<'static>>> {
    let chosen = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let (file, directory) = (chosen("SSL_CERT_FILE"), chosen("SSL_CERT_DIR"));
    let mut certificates = Vec::new();
    if let Some(file) = &file {
        certificates.extend(read_certificates(Path::new(file))?);
    }
    if let Some(directory) = &directory {
        let directory = Path::new(directory);
        let entries = std::fs::read_dir(directory)
            .with_context(|| format!("read {}", directory.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("read {}", directory.display()))?.path();
            if path.is_file() {
                // Certificates lie there under all kinds of names, beside other things.
                certificates.extend(read_certificates(&path).unwrap_or_default());
            }
        }
    }
    if file.is_some() || directory.is_some() {
        ensure!(!certificates.is_empty(), "SSL_CERT_DIR has no certificate");
        return Ok(certificates);
    }
    match CERTIFICATE_FILES.iter().map(Path::new).find(|path| path.exists()) {
        Some(path) => read_certificates(path),
        None => Ok(Vec::new()),
    }
}

fn read_pair(certificate: &Path, key: &Path) -> Result<ClientCert> {
    let private = std::fs::read(key).with_context(|| format!("read {}", key.display()))?;
    let private =
        PrivateKey::from_pem(&private).with_context(|| format!("read {}", key.display()))?;
    let certificates = read_certificates(certificate)?;
    check_pair(&certificates, &private)
        .with_context(|| format!("use {} with {}", certificate.display(), key.display()))?;
    Ok(ClientCert::new_with_certs(&certificates, private))
}

/// ureq takes for granted that TLS can use them: that the key is the certificate's, and that the
/// certificate is of version 3.
fn check_pair(certificates: &[Certificate<'_>], key: &PrivateKey<'_>) -> Result<()> {
    let key = PrivateKeyDer::try_from(key.der().to_vec()).map_err(|text| anyhow!(text))?;
    let chain = certificates.iter().map(|one| CertificateDer::from(one.der().to_vec())).collect();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_client_auth_cert(chain, key)?;
    Ok(())
}

fn read_certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let pem = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        bail!("{} has no certificate", path.display());
    }
    Ok(certificates)
}
