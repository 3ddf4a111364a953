//! Where in a document a walk stands. Nothing is written down before somebody asks.

/// A place, by the one above it.
#[derive(Clone, Copy)]
pub struct Path<'p> {
    above: Option<&'p Path<'p>>,
    token: Token<'p>,
}

#[derive(Clone, Copy)]
enum Token<'p> {
    /// A whole JSON Pointer: where the walk began.
    Pointer(&'p str),
    Key(&'p str),
    Index(usize),
}

impl<'p> Path<'p> {
    /// Begins at a JSON Pointer.
    pub const fn at(pointer: &'p str) -> Self {
        Self {
            above: None,
            token: Token::Pointer(pointer),
        }
    }

    pub fn member(&'p self, key: &'p str) -> Self {
        Self {
            above: Some(self),
            token: Token::Key(key),
        }
    }

    pub fn element(&'p self, index: usize) -> Self {
        Self {
            above: Some(self),
            token: Token::Index(index),
        }
    }

    /// The place as a JSON Pointer (RFC 6901).
    pub fn pointer(&self) -> String {
        let mut text = self.above.map(Path::pointer).unwrap_or_default();
        match self.token {
            Token::Pointer(pointer) => text.push_str(pointer),
            Token::Key(key) => {
                text.push('/');
                text.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Token::Index(index) => {
                text.push('/');
                text.push_str(&index.to_string());
            }
        }
        text
    }
}
