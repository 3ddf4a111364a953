//! Certificates that tests make for themselves: a CA, and what it signs.

use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A CA of a test.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Pair {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        Self::made(name, |_| {})
    }

    /// One that ends at this moment.
    pub fn until(name: &str, end: SystemTime) -> Self {
        Self::made(name, |params| params.not_after = end.into())
    }

    fn made(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for a server on loopback.
    pub fn server(&self) -> Pair {
        self.issue(ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// One that ended with the year before this one.
    pub fn server_until(&self, year: i32) -> Pair {
        let until = rcgen::date_time_ymd(year, 1, 1);
        self.issue_with(ExtendedKeyUsagePurpose::ServerAuth, |params| {
            params.not_after = until
        })
    }

    /// One for another host than this.
    pub fn server_elsewhere(&self) -> Pair {
        self.issue_with(ExtendedKeyUsagePurpose::ServerAuth, |params| {
            let name = "other.example".to_owned().try_into().unwrap();
            params.subject_alt_names = vec![rcgen::SanType::DnsName(name)];
        })
    }

    pub fn client(&self) -> Pair {
        self.issue(ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(&self, usage: ExtendedKeyUsagePurpose) -> Pair {
        self.issue_with(usage, |_| {})
    }

    fn issue_with(
        &self,
        usage: ExtendedKeyUsagePurpose,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let key = KeyPair::generate().unwrap();
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![usage];
        change(&mut params);
        Pair {
            cert: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Pair {
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        certificates(&self.cert)
    }

    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }

    /// A server that shows this certificate and asks for one of `clients`, if given.
    pub fn server_config(&self, clients: Option<&Authority>) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(
                    Arc::new(roots(authority.pem())),
                    provider,
                )
                .build()
                .unwrap(),
            ),
        };
        let config = builder
            .with_single_cert(self.chain(), self.private_key())
            .unwrap();
        Arc::new(config)
    }
}

pub fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    let parsed = CertificateDer::pem_slice_iter(pem.as_bytes());
    parsed.collect::<Result<_, _>>().unwrap()
}

pub fn roots(pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem) {
        roots.add(certificate).unwrap();
    }
    roots
}
