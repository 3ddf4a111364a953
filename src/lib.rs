pub mod admission;
pub mod certs;
