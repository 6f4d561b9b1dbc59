//! TLS, with libpq's degrees of trust. The cryptography is ring's, named here and nowhere set for the whole process.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use tidegate::scheduler::database::OpenError;

/// Which servers are trusted.
pub(super) enum Trust {
    /// Any: what is sent is encrypted, to whomever.
    Anybody,
    /// Those with a certificate that one of these signed, whatever their name (`verify-ca`).
    Chain(RootCertStore),
    /// Those that have the name that we called them by as well (`verify-full`).
    Name(RootCertStore),
}

/// The certificates in a PEM file.
pub(super) fn roots_in_file(file: &str) -> Result<RootCertStore, OpenError> {
    let problem = |what: String| OpenError::Postgres(format!("sslrootcert \"{file}\" {what}"));
    let certificates =
        CertificateDer::pem_file_iter(file).map_err(|error| problem(format!("cannot be read: {error}")))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let certificate = certificate.map_err(|error| problem(format!("cannot be read: {error}")))?;
        roots.add(certificate).map_err(|error| problem(format!("holds a certificate that cannot be used: {error}")))?;
    }
    if roots.is_empty() {
        return Err(problem("holds no certificate: give a file in PEM format".to_owned()));
    }
    Ok(roots)
}

/// The certificates that the system trusts.
pub(super) fn roots_of_system() -> Result<RootCertStore, OpenError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(OpenError::Postgres(
            "the system has no certificates to verify the server with: name a file with sslrootcert=".to_owned(),
        ));
    }
    Ok(roots)
}

/// What connects with this trust.
pub(super) fn connector(trust: &Trust) -> Result<MakeRustlsConnect, OpenError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| OpenError::Postgres(format!("TLS cannot be set up: {error}")))?;
    let config = match trust {
        Trust::Name(roots) => builder.with_root_certificates(roots.clone()),
        Trust::Chain(roots) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyName { roots: Some(roots.clone()), provider })),
        Trust::Anybody => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName { roots: None, provider }))
        }
    };
    Ok(MakeRustlsConnect::new(config.with_no_client_auth()))
}

/// Verifies all but the server's name; without roots, not the certificate either.
#[derive(Debug)]
struct AnyName {
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(certificate)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
