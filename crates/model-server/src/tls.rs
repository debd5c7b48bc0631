//! TLS for gRPC, as an SSLConfig says.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use crate::proto::read_text;
use crate::proto::serving::SslConfig;

/// What takes connections by the keys and certificates that are in the file, as PEM.
pub fn acceptor(file: &Path) -> Result<TlsAcceptor> {
    let config: SslConfig = read_text(file, "tensorflow.serving.SSLConfig")?;
    let of = |what: &'static str| move || format!("{}: {what}", file.display());
    let key = PrivateKeyDer::from_pem_slice(config.server_key.as_bytes())
        .with_context(of("server_key is no key in PEM"))?;
    let chain = certificates(&config.server_cert).with_context(of("server_cert"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let builder = if config.client_verify {
        let mut trusted = RootCertStore::empty();
        for certificate in certificates(&config.custom_ca)
            .with_context(of("client_verify needs custom_ca, whose clients are trusted"))?
        {
            trusted.add(certificate).with_context(of("custom_ca"))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(trusted.into(), provider);
        builder.with_client_cert_verifier(verifier.build()?)
    } else {
        builder.with_no_client_auth()
    };
    let mut server =
        builder.with_single_cert(chain, key).with_context(of("server_key or server_cert"))?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(server).into())
}

/// Says why there is no agreement on TLS: in a warning where it is the client's certificate.
pub fn say_why(error: &std::io::Error) {
    /// Clients may try again and again.
    const EVERY: Duration = Duration::from_secs(10);
    static WARNED: Mutex<Option<Instant>> = Mutex::new(None);
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(why)) = inner else {
        return debug!("a connection without TLS: {error}");
    };
    let mut warned = WARNED.lock().unwrap_or_else(PoisonError::into_inner);
    if warned.is_some_and(|warned| warned.elapsed() < EVERY) {
        return debug!("a client's certificate is refused: {error}");
    }
    *warned = Some(Instant::now());
    match format!("{why:?}").contains("UnsupportedCertVersion") {
        true => warn!(
            "a client's certificate is refused: it is of X.509's version 1, which has no extensions to check; \
             issue one of version 3, such as by openssl x509 -req with -extfile"
        ),
        false => warn!("a client's certificate is refused: {error}"),
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>()?;
    ensure!(!all.is_empty(), "there is no certificate in PEM");
    Ok(all)
}
