//! Computes a condition: three-valued, bounded, and without a panic.
//!
//! What is not known is a value ([`Value::Missing`]) that spreads, except where it does not matter: `false && x` is
//! false whatever x is. What has no value is a [`Fault`], and spreads in the same way.

use std::borrow::Cow;
use std::ops::{BitOr, Not};
use std::rc::Rc;

use super::super::facts::{SessionFacts, StatementFacts};
use super::Outcome;
use super::expr::{Arithmetic, Comparison, Each, Expr, Place};

/// A value; a condition's types were checked, so each expression has the kind of value that is expected of it.
#[derive(Clone, Debug)]
pub(in super::super) enum Value<'f> {
    Bool(bool),
    Int(i64),
    Text(Cow<'f, str>),
    List(Items<'f>),
    /// Not known.
    Missing(Missing),
}

/// The members of a list.
#[derive(Clone, Debug)]
pub(in super::super) enum Items<'f> {
    Strings(&'f [String]),
    Values(Rc<[Value<'f>]>),
}

/// Why a value is not known; several reasons may come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Missing(u8);

impl Missing {
    /// It will be known later: parameters before Bind.
    pub(in super::super) const LATER: Self = Self(1);
    /// A fact of the session.
    pub(in super::super) const SESSION: Self = Self(2);
    /// What the statement does.
    pub(in super::super) const STATEMENT: Self = Self(4);

    /// Whether this is among the reasons.
    pub(in super::super) fn is(self, reason: Self) -> bool {
        self.0 & reason.0 != 0
    }
}

impl BitOr for Missing {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Why an expression has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The result does not fit 64 bits.
    #[error("a number is too large")]
    Overflow,
    /// Division by zero.
    #[error("a number is divided by zero")]
    DivisionByZero,
    /// A list has no such member.
    #[error("a list has no member of that number")]
    NoSuchMember,
    /// `int` of a text that is no number.
    #[error("a text is not a number")]
    NotANumber,
    /// More than the condition may cost.
    #[error("the condition costs too much to compute")]
    Cost,
    /// The checker let through what it should not have.
    #[error("the condition was not checked")]
    Type,
}

type Result<T> = std::result::Result<T, Fault>;

/// What a condition says of these facts.
pub(super) fn outcome(expr: &Expr, session: &SessionFacts, stmt: Option<&StatementFacts>) -> Outcome {
    let mut run = Run { session, stmt, locals: Vec::new(), budget: BUDGET };
    match run.value(expr) {
        Ok(Value::Bool(true)) => Outcome::True,
        Ok(Value::Bool(false)) => Outcome::False,
        Ok(Value::Missing(missing)) => Outcome::Unknown(missing),
        Ok(_) => Outcome::Failed(Fault::Type),
        Err(fault) => Outcome::Failed(fault),
    }
}

/// What a condition may cost: operations, and 16 bytes of text each. Some ten milliseconds, and a text of 16 MiB may
/// still be searched.
const BUDGET: usize = 2 << 20;
/// Bytes of text that count as one operation.
const BYTES: usize = 16;

struct Run<'f> {
    session: &'f SessionFacts,
    stmt: Option<&'f StatementFacts>,
    locals: Vec<Value<'f>>,
    budget: usize,
}

impl<'f> Run<'f> {
    fn pay(&mut self, operations: usize) -> Result<()> {
        match self.budget.checked_sub(operations) {
            Some(rest) => {
                self.budget = rest;
                Ok(())
            }
            None => {
                self.budget = 0;
                Err(Fault::Cost)
            }
        }
    }

    /// For a copy of a text that was computed.
    fn pay_copy(&mut self, value: &Value<'f>) -> Result<()> {
        match value {
            Value::Text(Cow::Owned(text)) => self.pay(text.len() / BYTES),
            _ => Ok(()),
        }
    }

    fn value(&mut self, expr: &'f Expr) -> Result<Value<'f>> {
        self.pay(1)?;
        Ok(match expr {
            Expr::Bool(value) => Value::Bool(*value),
            Expr::Int(value) => Value::Int(*value),
            Expr::Text(text) => Value::Text(text.as_ref().into()),
            Expr::List(members) => {
                let members: Vec<_> =
                    members.iter().map(|member| self.value(member)).collect::<Result<_>>()?;
                match missing(&members) {
                    Some(missing) => Value::Missing(missing),
                    None => Value::List(Items::Values(members.into())),
                }
            }
            Expr::Field(field) => field.value(self.session, self.stmt),
            Expr::Local(at) => {
                let value = self.locals.get(*at).cloned().ok_or(Fault::Type)?;
                self.pay_copy(&value)?;
                value
            }
            Expr::Not(operand) => match self.value(operand)? {
                Value::Bool(value) => Value::Bool(value.not()),
                other => unknown(other)?,
            },
            Expr::Negate(operand) => match self.value(operand)? {
                Value::Int(value) => Value::Int(value.checked_neg().ok_or(Fault::Overflow)?),
                other => unknown(other)?,
            },
            Expr::And(operands) => self.both(operands, false)?,
            Expr::Or(operands) => self.both(operands, true)?,
            Expr::Conditional(parts) => {
                let [condition, then, otherwise] = &**parts;
                match self.value(condition)? {
                    Value::Bool(true) => self.value(then)?,
                    Value::Bool(false) => self.value(otherwise)?,
                    other => unknown(other)?,
                }
            }
            Expr::Compare(comparison, operands) => match self.operands(operands)? {
                Ok([a, b]) => Value::Bool(self.compare(*comparison, &a, &b)?),
                Err(missing) => Value::Missing(missing),
            },
            Expr::Arithmetic(arithmetic, operands) => match self.operands(operands)? {
                Ok([a, b]) => self.compute(*arithmetic, a, b)?,
                Err(missing) => Value::Missing(missing),
            },
            Expr::In(operands) => match self.operands(operands)? {
                Ok([member, Value::List(list)]) => Value::Bool(self.contains(&list, &member)?),
                Ok(_) => return Err(Fault::Type),
                Err(missing) => Value::Missing(missing),
            },
            Expr::Index(operands) => match self.operands(operands)? {
                Ok([Value::List(list), Value::Int(index)]) => usize::try_from(index)
                    .ok()
                    .and_then(|index| list.member(index))
                    .ok_or(Fault::NoSuchMember)?,
                Ok(_) => return Err(Fault::Type),
                Err(missing) => Value::Missing(missing),
            },
            Expr::Each(each, parts) => {
                let [list, condition] = &**parts;
                self.each(*each, list, condition)?
            }
            Expr::Map(list, condition, body) => self.map(list, condition.as_deref(), body)?,
            Expr::Holds(place, operands) => match self.operands(operands)? {
                Ok([Value::Text(text), Value::Text(part)]) => {
                    self.pay(text.len() / BYTES)?;
                    Value::Bool(match place {
                        Place::Start => text.starts_with(&*part),
                        Place::End => text.ends_with(&*part),
                        Place::Anywhere => memchr::memmem::find(text.as_bytes(), part.as_bytes()).is_some(),
                    })
                }
                Ok(_) => return Err(Fault::Type),
                Err(missing) => Value::Missing(missing),
            },
            Expr::Size(_)
            | Expr::Matches(..)
            | Expr::Lower(_)
            | Expr::Upper(_)
            | Expr::ToInt(_)
            | Expr::ToText(_) => self.function(expr)?,
        })
    }

    /// A function of one value.
    fn function(&mut self, expr: &'f Expr) -> Result<Value<'f>> {
        let (Expr::Size(operand)
        | Expr::Matches(operand, _)
        | Expr::Lower(operand)
        | Expr::Upper(operand)
        | Expr::ToInt(operand)
        | Expr::ToText(operand)) = expr
        else {
            return Err(Fault::Type);
        };
        let value = self.value(operand)?;
        if let Value::Text(text) = &value {
            self.pay(text.len() / BYTES)?;
        }
        Ok(match (expr, value) {
            (_, Value::Missing(missing)) => Value::Missing(missing),
            (Expr::Size(_), Value::Text(text)) => Value::Int(count(text.chars().count())),
            (Expr::Size(_), Value::List(list)) => Value::Int(count(list.len())),
            (Expr::Matches(_, regex), Value::Text(text)) => Value::Bool(regex.is_match(&text)),
            (Expr::Lower(_), Value::Text(text)) => Value::Text(text.to_ascii_lowercase().into()),
            (Expr::Upper(_), Value::Text(text)) => Value::Text(text.to_ascii_uppercase().into()),
            (Expr::ToInt(_), Value::Text(text)) => Value::Int(text.parse().map_err(|_| Fault::NotANumber)?),
            (Expr::ToText(_), Value::Int(number)) => Value::Text(number.to_string().into()),
            _ => return Err(Fault::Type),
        })
    }

    /// And, or (the operator that `decisive` decides alone).
    fn both(&mut self, operands: &'f [Expr; 2], decisive: bool) -> Result<Value<'f>> {
        let mut fold = Fold::new(decisive);
        for operand in operands {
            let value = self.value(operand);
            if fold.add(value)? {
                break;
            }
        }
        fold.end()
    }

    fn each(&mut self, each: Each, list: &'f Expr, condition: &'f Expr) -> Result<Value<'f>> {
        let list = match self.value(list)? {
            Value::List(list) => list,
            other => return unknown(other),
        };
        let mut fold = Fold::new(each != Each::All);
        let mut found = 0;
        for at in 0..list.len() {
            let value = self.with(list.member(at), |run| run.value(condition));
            if each == Each::ExistsOne {
                match value? {
                    Value::Bool(value) => found += usize::from(value),
                    other => return unknown(other),
                }
            } else if fold.add(value)? {
                break;
            }
        }
        if each == Each::ExistsOne { Ok(Value::Bool(found == 1)) } else { fold.end() }
    }

    fn map(&mut self, list: &'f Expr, condition: Option<&'f Expr>, body: &'f Expr) -> Result<Value<'f>> {
        let list = match self.value(list)? {
            Value::List(list) => list,
            other => return unknown(other),
        };
        let mut members = Vec::new();
        for at in 0..list.len() {
            let member = self.with(list.member(at), |run| {
                match condition.map(|condition| run.value(condition)).transpose()? {
                    Some(Value::Bool(false)) => Ok(None),
                    Some(Value::Missing(missing)) => Ok(Some(Value::Missing(missing))),
                    _ => run.value(body).map(Some),
                }
            })?;
            members.extend(member);
        }
        Ok(match missing(&members) {
            Some(missing) => Value::Missing(missing),
            None => Value::List(Items::Values(members.into())),
        })
    }

    /// With one more variable.
    fn with<T>(
        &mut self,
        member: Option<Value<'f>>,
        inside: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let member = member.ok_or(Fault::NoSuchMember)?;
        self.pay_copy(&member)?;
        self.locals.push(member);
        let value = inside(self);
        self.locals.pop();
        value
    }

    fn operands(&mut self, operands: &'f [Expr; 2]) -> Result<std::result::Result<[Value<'f>; 2], Missing>> {
        let [a, b] = operands;
        let values = [self.value(a)?, self.value(b)?];
        Ok(missing(&values).map_or(Ok(values), Err))
    }

    fn contains(&mut self, list: &Items<'f>, member: &Value<'f>) -> Result<bool> {
        for at in 0..list.len() {
            let other = list.member(at).ok_or(Fault::NoSuchMember)?;
            if self.equal(&other, member)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn equal(&mut self, a: &Value<'f>, b: &Value<'f>) -> Result<bool> {
        self.pay(1)?;
        Ok(match (a, b) {
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Int(a), Value::Int(b)) => a == b,
            (Value::Text(a), Value::Text(b)) => {
                if a.len() == b.len() {
                    self.pay(a.len() / BYTES)?;
                }
                a == b
            }
            (Value::List(a), Value::List(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for at in 0..a.len() {
                    let (Some(a), Some(b)) = (a.member(at), b.member(at)) else {
                        return Err(Fault::NoSuchMember);
                    };
                    if !self.equal(&a, &b)? {
                        return Ok(false);
                    }
                }
                true
            }
            _ => return Err(Fault::Type),
        })
    }

    fn compare(&mut self, comparison: Comparison, a: &Value<'f>, b: &Value<'f>) -> Result<bool> {
        match comparison {
            Comparison::Equal => return self.equal(a, b),
            Comparison::NotEqual => return self.equal(a, b).map(Not::not),
            _ => {}
        }
        let order = match (a, b) {
            (Value::Int(a), Value::Int(b)) => a.cmp(b),
            (Value::Text(a), Value::Text(b)) => {
                self.pay(a.len().min(b.len()) / BYTES)?;
                a.cmp(b)
            }
            _ => return Err(Fault::Type),
        };
        Ok(match comparison {
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            _ => order.is_ge(),
        })
    }

    fn compute(&mut self, arithmetic: Arithmetic, a: Value<'f>, b: Value<'f>) -> Result<Value<'f>> {
        Ok(match (arithmetic, a, b) {
            (Arithmetic::Add, Value::Text(a), Value::Text(b)) => {
                self.pay((a.len() + b.len()) / BYTES)?;
                Value::Text((a.into_owned() + &*b).into())
            }
            (Arithmetic::Add, Value::List(a), Value::List(b)) => {
                self.pay(a.len() + b.len())?;
                let members =
                    |list: &Items<'f>| (0..list.len()).filter_map(|at| list.member(at)).collect::<Vec<_>>();
                let mut all = members(&a);
                all.extend(members(&b));
                Value::List(Items::Values(all.into()))
            }
            (arithmetic, Value::Int(a), Value::Int(b)) => Value::Int(match arithmetic {
                Arithmetic::Add => a.checked_add(b).ok_or(Fault::Overflow)?,
                Arithmetic::Subtract => a.checked_sub(b).ok_or(Fault::Overflow)?,
                Arithmetic::Multiply => a.checked_mul(b).ok_or(Fault::Overflow)?,
                _ if b == 0 => return Err(Fault::DivisionByZero),
                Arithmetic::Divide => a.checked_div(b).ok_or(Fault::Overflow)?,
                Arithmetic::Remainder => a.checked_rem(b).ok_or(Fault::Overflow)?,
            }),
            _ => return Err(Fault::Type),
        })
    }
}

/// Values joined by and, or.
struct Fold {
    /// The value that decides alone: false for and, true for or.
    decisive: bool,
    decided: bool,
    missing: Option<Missing>,
    fault: Option<Fault>,
}

impl Fold {
    fn new(decisive: bool) -> Self {
        Self { decisive, decided: false, missing: None, fault: None }
    }

    /// Whether it is decided.
    fn add(&mut self, value: Result<Value<'_>>) -> Result<bool> {
        match value {
            Ok(Value::Bool(value)) => self.decided |= value == self.decisive,
            Ok(Value::Missing(missing)) => {
                self.missing = Some(self.missing.map_or(missing, |before| before | missing));
            }
            Ok(_) => return Err(Fault::Type),
            // Nothing more can be computed.
            Err(Fault::Cost) => return Err(Fault::Cost),
            Err(fault) => self.fault = Some(fault),
        }
        Ok(self.decided)
    }

    /// What is not known may still decide, so it comes before what has no value.
    fn end<'f>(self) -> Result<Value<'f>> {
        match (self.decided, self.missing, self.fault) {
            (true, ..) => Ok(Value::Bool(self.decisive)),
            (false, Some(missing), _) => Ok(Value::Missing(missing)),
            (false, None, Some(fault)) => Err(fault),
            (false, None, None) => Ok(Value::Bool(!self.decisive)),
        }
    }
}

impl<'f> Items<'f> {
    fn len(&self) -> usize {
        match self {
            Self::Strings(strings) => strings.len(),
            Self::Values(values) => values.len(),
        }
    }

    fn member(&self, at: usize) -> Option<Value<'f>> {
        match self {
            Self::Strings(strings) => strings.get(at).map(|text| Value::Text(text.as_str().into())),
            Self::Values(values) => values.get(at).cloned(),
        }
    }
}

/// The reasons why any of the values is not known.
fn missing(values: &[Value<'_>]) -> Option<Missing> {
    let reasons = values.iter().filter_map(|value| match value {
        Value::Missing(missing) => Some(*missing),
        _ => None,
    });
    reasons.reduce(|a, b| a | b)
}

/// Passes on that a value is not known; anything else has the wrong type.
fn unknown(value: Value<'_>) -> Result<Value<'_>> {
    match value {
        Value::Missing(_) => Ok(value),
        _ => Err(Fault::Type),
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
