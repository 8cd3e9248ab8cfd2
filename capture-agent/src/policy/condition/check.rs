//! Checks types, resolves names, and makes the expression that is evaluated.

use cel::common::ast::{CallExpr, Expr as Tree, IdedExpr, LiteralValue, SourceInfo, operators};

use super::super::fields::{FIELDS, Field};
use super::calls::{self, Call};
use super::expr::{Arithmetic, Comparison, Each, Expr};
use super::types::Type;
use super::{ConditionError, Scope, nearest};

/// Checks a whole condition, which must be a truth value.
pub(super) fn checked(
    tree: &IdedExpr,
    positions: &SourceInfo,
    scope: Scope,
) -> Result<(Expr, Vec<Field>), ConditionError> {
    let mut checker = Checker { positions, scope, locals: Vec::new(), reads: Vec::new(), depth: 0 };
    let expr = checker.expect(tree, &Type::Bool, "a condition")?;
    Ok((expr, checker.reads))
}

pub(super) struct Checker<'t> {
    positions: &'t SourceInfo,
    scope: Scope,
    /// Variables of `all`, `exists`, …, the outermost first.
    locals: Vec<(&'t str, Type)>,
    reads: Vec<Field>,
    depth: usize,
}

/// What is evaluated recurses as deeply as the expression.
const MOST_DEPTH: usize = 128;

pub(super) type Checked = Result<(Expr, Type), ConditionError>;

impl<'t> Checker<'t> {
    pub(super) fn fail<T>(&self, at: &IdedExpr, message: impl Into<String>) -> Result<T, ConditionError> {
        let at = self.positions.offset_for(at.id).map_or(0, |(start, _)| start as usize);
        Err(ConditionError { at, message: message.into() })
    }

    /// An expression of a certain type; `what` it is for.
    pub(super) fn expect(
        &mut self,
        tree: &'t IdedExpr,
        wanted: &Type,
        what: &str,
    ) -> Result<Expr, ConditionError> {
        let (expr, found) = self.check(tree)?;
        if found.fits(wanted) {
            Ok(expr)
        } else {
            self.fail(tree, format!("{what} is {wanted}, and this is {found}"))
        }
    }

    pub(super) fn check(&mut self, tree: &'t IdedExpr) -> Checked {
        self.depth += 1;
        if self.depth > MOST_DEPTH {
            return self.fail(tree, format!("the condition is nested deeper than {MOST_DEPTH} operations"));
        }
        let checked = self.kind(tree);
        self.depth -= 1;
        checked
    }

    fn kind(&mut self, tree: &'t IdedExpr) -> Checked {
        match &tree.expr {
            Tree::Literal(literal) => self.literal(tree, literal),
            Tree::Ident(name) => self.name(tree, name),
            Tree::Select(select) => match &select.operand.expr {
                Tree::Ident(object) if !self.locals.iter().any(|(name, _)| name == object) => {
                    self.field(tree, object, &select.field)
                }
                _ => {
                    let (_, found) = self.check(&select.operand)?;
                    self.fail(tree, format!("{found} has no field `{}`", select.field))
                }
            },
            Tree::List(list) => self.list(tree, &list.elements),
            Tree::Call(call) => self.call(tree, call),
            Tree::Map(_) | Tree::Struct(_) => {
                self.fail(tree, "maps and messages are not supported here; use a list")
            }
            Tree::Comprehension(_) | Tree::Unspecified => self.fail(tree, "this is not supported here"),
        }
    }

    fn literal(&self, tree: &IdedExpr, literal: &LiteralValue) -> Checked {
        Ok(match literal {
            LiteralValue::Boolean(value) => (Expr::Bool(*value.inner()), Type::Bool),
            LiteralValue::Int(value) => (Expr::Int(*value.inner()), Type::Int),
            LiteralValue::String(value) => (Expr::Text(value.inner().into()), Type::String),
            LiteralValue::Null => return self.fail(tree, "nothing is null here: what is absent is empty"),
            LiteralValue::Bytes(_) | LiteralValue::Double(_) | LiteralValue::UInt(_) => {
                return self.fail(tree, "constants are bool, int, string, and lists of them");
            }
        })
    }

    fn name(&self, tree: &IdedExpr, name: &str) -> Checked {
        if let Some(at) = self.locals.iter().rposition(|(local, _)| *local == name) {
            let kind = self.locals[at].1.clone();
            return Ok((Expr::Local(at), kind));
        }
        if matches!(name, "session" | "stmt") {
            return self
                .fail(tree, format!("`{name}` alone is no value: name a field, such as {}", example(name)));
        }
        let known = self.locals.iter().map(|(local, _)| *local).chain(["session", "stmt", "true", "false"]);
        let hint = hint(nearest(name, known));
        self.fail(tree, format!("`{name}` is not known here; there are `session` and `stmt`{hint}"))
    }

    fn field(&mut self, tree: &IdedExpr, object: &str, name: &str) -> Checked {
        if !matches!(object, "session" | "stmt") {
            let hint = hint(nearest(object, ["session", "stmt"]));
            return self
                .fail(tree, format!("`{object}` is not known here; there are `session` and `stmt`{hint}"));
        }
        if object == "stmt" && self.scope == Scope::Session {
            return self.fail(
                tree,
                "`match` chooses sessions and cannot see statements: conditions on `stmt` belong in a guardrail's `when`",
            );
        }
        let of_object = || FIELDS.iter().filter(|field| field.object == object);
        let Some(info) = of_object().find(|field| field.name == name) else {
            let names = of_object().map(|field| field.name);
            let hint = match nearest(name, names.clone()) {
                Some(near) => format!("; did you mean `{object}.{near}`?"),
                None => format!("; there are {}", names.collect::<Vec<_>>().join(", ")),
            };
            return self.fail(tree, format!("`{object}` has no field `{name}`{hint}"));
        };
        if !self.reads.contains(&info.field) {
            self.reads.push(info.field);
        }
        Ok((Expr::Field(info.field), info.kind.clone()))
    }

    fn list(&mut self, tree: &'t IdedExpr, elements: &'t [IdedExpr]) -> Checked {
        let mut members = Vec::with_capacity(elements.len());
        let mut kind = Type::Any;
        for element in elements {
            let (member, found) = self.check(element)?;
            if !found.fits(&kind) {
                return self.fail(element, format!("this is {found} in a list of {kind}"));
            }
            kind = found;
            members.push(member);
        }
        match kind.list_of() {
            Some(kind) => Ok((Expr::List(members), kind)),
            None => self.fail(tree, "lists are not nested so deeply here"),
        }
    }

    fn call(&mut self, tree: &'t IdedExpr, call: &'t CallExpr) -> Checked {
        match (call.func_name.as_str(), call.target.as_deref(), call.args.as_slice()) {
            (operators::LOGICAL_NOT, None, [a]) => {
                Ok((Expr::Not(Box::new(self.expect(a, &Type::Bool, "the operand of !")?)), Type::Bool))
            }
            (operators::NEGATE, None, [a]) => {
                Ok((Expr::Negate(Box::new(self.expect(a, &Type::Int, "the operand of -")?)), Type::Int))
            }
            (operators::LOGICAL_AND, None, [a, b]) => Ok((Expr::And(self.truths(a, b, "&&")?), Type::Bool)),
            (operators::LOGICAL_OR, None, [a, b]) => Ok((Expr::Or(self.truths(a, b, "||")?), Type::Bool)),
            (operators::CONDITIONAL, None, [condition, a, b]) => self.conditional(condition, a, b),
            (operators::IN, None, [member, list]) => self.membership(tree, member, list),
            (operators::INDEX, None, [list, index]) => {
                let (list_expr, kind) = self.check(list)?;
                let Type::List(member) = kind else {
                    return self.fail(list, format!("only lists have members, and this is {kind}"));
                };
                let index = self.expect(index, &Type::Int, "an index")?;
                Ok((Expr::Index(Box::new([list_expr, index])), member.clone()))
            }
            (name, None, [a, b]) if comparison(name).is_some() || arithmetic(name).is_some() => {
                self.operation(tree, name, a, b)
            }
            (name @ ("all" | "exists" | "exists_one" | "existsOne"), Some(list), [variable, body]) => {
                let each = match name {
                    "all" => Each::All,
                    "exists" => Each::Exists,
                    _ => Each::ExistsOne,
                };
                let list = self.over(list, variable)?;
                let body = self.expect(body, &Type::Bool, "the condition on each member");
                self.locals.pop();
                Ok((Expr::Each(each, Box::new([list, body?])), Type::Bool))
            }
            ("filter", Some(list), [variable, condition]) => self.filter(list, variable, condition),
            ("map", Some(list), [variable, body]) => self.map(tree, list, variable, None, body),
            ("map", Some(list), [variable, condition, body]) => {
                self.map(tree, list, variable, Some(condition), body)
            }
            (name, target, args) => {
                let call = Call { tree, name, target, args };
                calls::checked(self, &call)
            }
        }
    }

    fn truths(
        &mut self,
        a: &'t IdedExpr,
        b: &'t IdedExpr,
        operator: &str,
    ) -> Result<Box<[Expr; 2]>, ConditionError> {
        let what = format!("an operand of {operator}");
        Ok(Box::new([self.expect(a, &Type::Bool, &what)?, self.expect(b, &Type::Bool, &what)?]))
    }

    fn conditional(&mut self, condition: &'t IdedExpr, a: &'t IdedExpr, b: &'t IdedExpr) -> Checked {
        let condition = self.expect(condition, &Type::Bool, "the condition of ?:")?;
        let (then, kind) = self.check(a)?;
        let (otherwise, other) = self.check(b)?;
        if !kind.fits(&other) {
            return self
                .fail(b, format!("both values of ?: must be of one type, and these are {kind} and {other}"));
        }
        let kind = if kind == Type::List(&Type::Any) { other } else { kind };
        Ok((Expr::Conditional(Box::new([condition, then, otherwise])), kind))
    }

    fn membership(&mut self, tree: &'t IdedExpr, member: &'t IdedExpr, list: &'t IdedExpr) -> Checked {
        let (member_expr, kind) = self.check(member)?;
        let (list_expr, list_kind) = self.check(list)?;
        let Type::List(of) = list_kind else {
            return self.fail(list, format!("`in` looks into a list, and this is {list_kind}"));
        };
        if !kind.fits(of) {
            return self.fail(tree, format!("{kind} is never in {}", Type::List(of)));
        }
        if let (Expr::Text(text), Expr::Field(field)) = (&member_expr, &list_expr) {
            self.possible(member, text, *field)?;
        }
        Ok((Expr::In(Box::new([member_expr, list_expr])), Type::Bool))
    }

    /// Refuses a constant that a field never holds: such a condition would never be true, and nobody would notice.
    fn possible(&self, tree: &IdedExpr, text: &str, field: Field) -> Result<(), ConditionError> {
        let plain = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
        match field {
            Field::Kinds if !crate::sql::is_kind(text) => {
                let hint = hint(nearest(text, crate::sql::verbs()));
                self.fail(tree, format!("\"{text}\" is no kind of statement{hint}"))
            }
            Field::Settings if !text.chars().all(|c| plain(c) || c == '.') => {
                self.fail(tree, format!("stmt.settings are in lower case, and \"{text}\" is not"))
            }
            _ => Ok(()),
        }
    }

    fn operation(&mut self, tree: &'t IdedExpr, name: &str, a: &'t IdedExpr, b: &'t IdedExpr) -> Checked {
        let (left, kind) = self.check(a)?;
        let (right, other) = self.check(b)?;
        if !kind.fits(&other) {
            return self
                .fail(tree, format!("{kind} and {other} are not compared or computed with each other"));
        }
        let operands = Box::new([left, right]);
        if let Some(comparison) = comparison(name) {
            let ordered = !matches!(comparison, Comparison::Equal | Comparison::NotEqual);
            if ordered && !matches!(kind, Type::Int | Type::String) {
                return self.fail(tree, format!("{kind} has no order; int and string have"));
            }
            return Ok((Expr::Compare(comparison, operands), Type::Bool));
        }
        let arithmetic = arithmetic(name).unwrap_or(Arithmetic::Add);
        let adds = arithmetic == Arithmetic::Add && matches!(kind, Type::String | Type::List(_));
        if kind != Type::Int && !adds {
            return self.fail(tree, format!("{kind} is not computed with; int is"));
        }
        let kind = if kind == Type::List(&Type::Any) { other } else { kind };
        Ok((Expr::Arithmetic(arithmetic, operands), kind))
    }

    /// Begins a loop over a list; the caller ends it.
    fn over(&mut self, list: &'t IdedExpr, variable: &'t IdedExpr) -> Result<Expr, ConditionError> {
        let (expr, kind) = self.check(list)?;
        let Type::List(member) = kind else {
            return self.fail(list, format!("this looks at the members of a list, and this is {kind}"));
        };
        let Tree::Ident(name) = &variable.expr else {
            return self.fail(
                variable,
                "expected the name of a variable for the list's members, as in exists(t, t == \"a\")",
            );
        };
        self.locals.push((name, member.clone()));
        Ok(expr)
    }

    fn filter(&mut self, list: &'t IdedExpr, variable: &'t IdedExpr, condition: &'t IdedExpr) -> Checked {
        let list = self.over(list, variable)?;
        let condition = self.expect(condition, &Type::Bool, "the condition on each member");
        let local = self.locals.len() - 1;
        let kind = self.locals.pop().and_then(|(_, kind)| kind.list_of()).unwrap_or(Type::STRINGS);
        Ok((Expr::Map(Box::new(list), Some(Box::new(condition?)), Box::new(Expr::Local(local))), kind))
    }

    fn map(
        &mut self,
        tree: &'t IdedExpr,
        list: &'t IdedExpr,
        variable: &'t IdedExpr,
        condition: Option<&'t IdedExpr>,
        body: &'t IdedExpr,
    ) -> Checked {
        let list = self.over(list, variable)?;
        let condition = condition
            .map(|condition| self.expect(condition, &Type::Bool, "the condition on each member"))
            .transpose();
        let body = self.check(body);
        self.locals.pop();
        let (body, kind) = body?;
        match kind.list_of() {
            Some(kind) => Ok((Expr::Map(Box::new(list), condition?.map(Box::new), Box::new(body)), kind)),
            None => self.fail(tree, "lists are not nested so deeply here"),
        }
    }
}

pub(super) fn hint(near: Option<&str>) -> String {
    near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}

fn example(object: &str) -> &'static str {
    if object == "session" { "`session.user`" } else { "`stmt.kinds`" }
}

fn comparison(name: &str) -> Option<Comparison> {
    Some(match name {
        operators::EQUALS => Comparison::Equal,
        operators::NOT_EQUALS => Comparison::NotEqual,
        operators::LESS => Comparison::Less,
        operators::LESS_EQUALS => Comparison::LessOrEqual,
        operators::GREATER => Comparison::Greater,
        operators::GREATER_EQUALS => Comparison::GreaterOrEqual,
        _ => return None,
    })
}

fn arithmetic(name: &str) -> Option<Arithmetic> {
    Some(match name {
        operators::ADD => Arithmetic::Add,
        operators::SUBSTRACT => Arithmetic::Subtract,
        operators::MULTIPLY => Arithmetic::Multiply,
        operators::DIVIDE => Arithmetic::Divide,
        operators::MODULO => Arithmetic::Remainder,
        _ => return None,
    })
}
