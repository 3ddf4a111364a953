//! What the fast way does, step by step.

use serde_json::Value;

/// One operation, with the steps that its operands take.
#[derive(Debug)]
pub(in super::super) enum Step {
    /// The same in every evaluation: a literal, or a parameter.
    Fixed(Value),
    Spec(Path),
    Original(Path),
    Effective(Path),
    User,
    Project,
    Kind,
    Name,
    /// A variable of the policy, by its position.
    Variable(usize),
    /// A name that a comprehension binds, by how many are bound around it.
    Local(usize),
    Select(Box<Step>, Box<str>),
    Has(Box<Step>, Box<str>),
    OrValue(Box<Optional>, Box<Step>),
    /// A value that is paid for as if it were copied or read.
    Paid(Box<Step>),
    Not(Box<Step>),
    If(Box<[Step; 3]>),
    Binary(Binary, Box<[Step; 2]>),
    Call(Function, Box<[Step]>),
    HasType(Box<Step>, &'static str),
    Matches(Box<Step>, usize),
    List(Box<[Step]>),
    Map(Box<[(Step, Step)]>),
    Loop(Box<Loop>),
    Bind(Box<[Step; 2]>),
    Interpreted,
}

/// The members to go down through.
pub(super) type Path = Box<[Box<str>]>;

/// An optional value, which only `orValue` makes a value of.
#[derive(Debug)]
pub(in super::super) struct Optional {
    pub(super) of: Operand,
    pub(super) key: Step,
}

#[derive(Debug)]
pub(in super::super) enum Operand {
    Value(Step),
    Optional(Box<Optional>),
}

#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Binary {
    And,
    Or,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Index,
    Add,
    Multiply,
}

#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Function {
    Size,
    String,
    Double,
    IsUnlimited,
    IsImageReference,
    ImageReference,
    Trim,
    LowerAscii,
    StartsWith,
    EndsWith,
    Contains,
    Replace,
    Split,
    GlobMatches,
    /// With a pattern that only the evaluation knows.
    Matches,
    Entries,
    ToMap,
}

/// A comprehension.
#[derive(Debug)]
pub(in super::super) struct Loop {
    pub(super) range: Step,
    /// Units for one round.
    pub(super) weight: u64,
    pub(super) body: Body,
}

#[derive(Debug)]
pub(in super::super) enum Body {
    All(Step),
    Exists(Step),
    /// The elements for which the first holds, as the second.
    Collect(Option<Step>, Step),
}
