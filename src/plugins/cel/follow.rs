//! What an expression reads of a tree: selections, indices and the elements that comprehensions go
//! through, followed from the tree's name. Where a value comes from a variable or a function,
//! nothing is known of it.

use ::cel::IdedExpr;
use ::cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators};

/// A tree that has a name in expressions.
pub(super) trait Tree {
    /// A part of it.
    type Part: Clone;

    /// The whole tree, if it has this name.
    fn named(&self, name: &str) -> Option<Self::Part>;

    /// What a member of a part is, if that is known.
    fn member(&mut self, of: &Self::Part, access: &Access<'_>) -> Option<Self::Part>;

    /// What stands for every element of a part.
    fn items(&self, of: &Self::Part) -> Option<Self::Part>;
}

/// One member that is asked for: `operand.field`, `operand.?field` or `operand['field']`.
pub(super) struct Access<'e> {
    /// The node that asks.
    pub(super) id: u64,
    pub(super) operand: &'e IdedExpr,
    pub(super) field: &'e str,
    /// Whether it may be missing: what asks gives an optional value.
    pub(super) optional: bool,
}

/// Shows a tree every member that an expression asks of it, the whole before what is in it.
pub(super) fn follow<T: Tree>(expr: &IdedExpr, tree: T) -> T {
    let mut walk = Walk {
        tree,
        bound: Vec::new(),
    };
    walk.visit(expr);
    walk.tree
}

/// What an expression gives, as far as that is known.
#[derive(Clone)]
enum Given<P> {
    Part(P),
    /// Its keys or positions, each with its element: what macros of two variables go through.
    Entries(P),
}

struct Walk<'e, T: Tree> {
    tree: T,
    /// The names that are bound around, and what they stand for.
    bound: Vec<(&'e str, Option<Given<T::Part>>)>,
}

impl<'e, T: Tree> Walk<'e, T> {
    fn visit(&mut self, expr: &'e IdedExpr) -> Option<Given<T::Part>> {
        match &expr.expr {
            Expr::Ident(name) => match self.bound.iter().rev().find(|(bound, _)| bound == name) {
                Some((_, given)) => given.clone(),
                None => self.tree.named(name).map(Given::Part),
            },
            Expr::Select(select) => {
                let of = self.visit(&select.operand)?;
                let access = Access {
                    id: expr.id,
                    operand: &select.operand,
                    field: &select.field,
                    optional: false,
                };
                self.member(&of, &access)
            }
            Expr::Call(call) => self.call(expr.id, call),
            Expr::Comprehension(inner) => self.comprehension(inner),
            Expr::List(list) => {
                list.elements.iter().for_each(|element| {
                    self.visit(element);
                });
                None
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.visit(&entry.key);
                        self.visit(&entry.value);
                    }
                }
                None
            }
            Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => None,
        }
    }

    fn call(&mut self, id: u64, call: &'e CallExpr) -> Option<Given<T::Part>> {
        if let Some(target) = call.target.as_deref() {
            self.visit(target);
        }
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::INDEX, [operand, key]) => self.index(id, operand, key, false),
            (operators::OPT_INDEX | operators::OPT_SELECT, [operand, key]) => {
                self.index(id, operand, key, true)
            }
            ("@entries", [range]) => match self.visit(range)? {
                Given::Part(range) => Some(Given::Entries(range)),
                Given::Entries(_) => None,
            },
            (_, arguments) => {
                arguments.iter().for_each(|argument| {
                    self.visit(argument);
                });
                None
            }
        }
    }

    fn index(
        &mut self,
        id: u64,
        operand: &'e IdedExpr,
        key: &'e IdedExpr,
        optional: bool,
    ) -> Option<Given<T::Part>> {
        let of = self.visit(operand);
        self.visit(key);
        match (of?, &key.expr) {
            (of, Expr::Literal(LiteralValue::String(field))) => {
                let access = Access {
                    id,
                    operand,
                    field: field.inner(),
                    optional,
                };
                self.member(&of, &access)
            }
            (Given::Part(of), _) => self.tree.items(&of).map(Given::Part),
            (Given::Entries(of), Expr::Literal(LiteralValue::Int(position))) => {
                let element = *position.inner() == 1;
                let items = element.then(|| self.tree.items(&of)).flatten();
                items.map(Given::Part)
            }
            (Given::Entries(_), _) => None,
        }
    }

    fn member(&mut self, of: &Given<T::Part>, access: &Access<'_>) -> Option<Given<T::Part>> {
        match of {
            Given::Part(of) => self.tree.member(of, access).map(Given::Part),
            Given::Entries(_) => None,
        }
    }

    fn comprehension(&mut self, inner: &'e ComprehensionExpr) -> Option<Given<T::Part>> {
        let element = match self.visit(&inner.iter_range) {
            Some(Given::Part(range)) => self.tree.items(&range).map(Given::Part),
            entries => entries,
        };
        let begun = self.visit(&inner.accu_init);
        // One that goes no round binds a name.
        let binds = matches!(&inner.iter_range.expr, Expr::List(list) if list.elements.is_empty());
        let outer = self.bound.len();
        self.bound.push((&inner.iter_var, element));
        self.bound.push((&inner.accu_var, begun.filter(|_| binds)));
        self.visit(&inner.loop_cond);
        self.visit(&inner.loop_step);
        let result = self.visit(&inner.result);
        self.bound.truncate(outer);
        result
    }
}
