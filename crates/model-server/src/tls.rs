//! TLS for gRPC, as an SSLConfig says.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

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

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>()?;
    ensure!(!all.is_empty(), "there is no certificate in PEM");
    Ok(all)
}
