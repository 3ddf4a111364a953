pub mod admission;
pub mod config;
