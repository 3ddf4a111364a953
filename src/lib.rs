pub mod admission;
pub mod plugins;
