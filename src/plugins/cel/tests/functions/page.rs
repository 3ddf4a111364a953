//! The page about CEL says what is so.
