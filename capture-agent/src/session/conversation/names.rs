//! Prepared statements and portals, as the server has them.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

use crate::frames::backend;
use crate::frames::frontend::{Bind, format_at};
use crate::session::saved::clipped;
use crate::session::{Column, Limits, Param, value::Encoding};

/// A prepared statement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Prepared {
    pub(super) name: Arc<str>,
    #[serde(serialize_with = "clipped::text")]
    pub(super) sql: Option<Arc<str>>,
    /// Whether `sql` is shorter than what was sent.
    pub(super) truncated: bool,
    /// Parameter types as Parse gave them.
    pub(super) declared: Arc<[u8]>,
    /// Parameter types: an OID of four bytes each, in network byte order, from Parse or, better,
    /// ParameterDescription.
    pub(super) types: Arc<[u8]>,
    /// From the answer to a Describe of it; the formats are not known.
    pub(super) columns: Option<Arc<[Column]>>,
    /// From the answer to a Describe of its latest portal.
    pub(super) described: Option<Described>,
    /// `columns` with the result formats of its latest portal, and these formats.
    pub(super) bound: Option<Described>,
}

impl Prepared {
    /// What SQL's PREPARE makes.
    pub(super) fn of_sql(name: &str, sql: &str) -> Self {
        Self {
            name: name.into(),
            sql: Some(sql.into()),
            truncated: false,
            declared: Arc::default(),
            types: Arc::default(),
            columns: None,
            described: None,
            bound: None,
        }
    }

    /// The type of the parameter at `index`; 0 if it is not known.
    pub(super) fn type_at(&self, index: usize) -> u32 {
        oid_at(&self.types, index)
    }

    fn size(&self) -> usize {
        self.name.len() + self.sql.as_ref().map_or(0, |sql| sql.len()) + self.types.len()
    }
}

/// The OID at `index` of a list in network byte order; 0 if it is not there.
pub(super) fn oid_at(types: &[u8], index: usize) -> u32 {
    let at = index.saturating_mul(4);
    types.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |oid| u32::from_be_bytes(*oid))
}

/// Columns, and the bytes that they were made of, so that equal bytes share them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Described {
    #[serde(with = "serde_bytes")]
    pub(super) bytes: Box<[u8]>,
    pub(super) columns: Arc<[Column]>,
}

impl Described {
    /// Reads a RowDescription.
    pub(super) fn read(body: &[u8], encoding: Encoding) -> Self {
        let columns = backend::row_description(body)
            .map(|field| Column {
                name: encoding.decode(field.name).into(),
                type_oid: field.type_oid,
                table_oid: field.table_oid,
                attnum: field.attnum,
                format: field.format,
            })
            .collect();
        Self { bytes: body.into(), columns }
    }

    /// Sets the formats that a Bind asked for.
    fn bind(columns: &[Column], formats: &[u8]) -> Self {
        let columns = columns
            .iter()
            .enumerate()
            .map(|(index, column)| Column { format: format_at(formats, index), ..column.clone() })
            .collect();
        Self { bytes: formats.into(), columns }
    }
}

/// A portal: a prepared statement with parameters.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Portal {
    pub(super) statement: Option<Arc<Prepared>>,
    /// The prepared statement's name as the client gave it.
    pub(super) statement_name: Option<Arc<str>>,
    /// The Bind message's body.
    #[serde(serialize_with = "clipped::bytes", deserialize_with = "serde_bytes::deserialize")]
    pub(super) body: Vec<u8>,
    /// Places in `body`.
    #[serde(serialize_with = "clipped::params")]
    pub(super) params: Vec<Param>,
    pub(super) columns: Option<Arc<[Column]>>,
    /// Position of the Bind message in the client's stream.
    pub(super) offset: u64,
    /// Bytes of Bind, and of the replies to it and to Describe, that no Execute has accounted for yet.
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    /// Whether a parameter is missing or cut off.
    pub(super) truncated: bool,
    /// Whether bytes of Bind, or of a reply to it, were lost.
    pub(super) touched: bool,
}

impl Portal {
    /// Whether its Bind names the prepared statement `name`.
    pub(super) fn of_statement(&self, name: &[u8]) -> bool {
        Bind::names(&self.body).is_some_and(|(_, statement)| statement == name)
    }
}

/// All prepared statements and portals of a session.
///
/// Invariants: `text` is the sum of the statements' sizes and stays under `Limits::prepared`; `held` is what the
/// named portals' bodies take.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Names {
    #[serde(skip)]
    statements: Statements,
    /// How often `statements` was changed.
    #[serde(skip)]
    version: u64,
    unnamed: Option<Arc<Prepared>>,
    /// The unnamed statement before, which the next one often equals.
    previous: Option<Arc<Prepared>>,
    portals: HashMap<Box<[u8]>, Box<Portal>, foldhash::fast::RandomState>,
    unnamed_portal: Option<Box<Portal>>,
    #[serde(skip)]
    text: usize,
    held: usize,
}

/// The named prepared statements.
pub(super) type Statements = HashMap<Box<[u8]>, Arc<Prepared>, foldhash::fast::RandomState>;

impl Names {
    pub(super) fn statements(&self) -> &Statements {
        &self.statements
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// All portals.
    pub(super) fn portals_mut(&mut self) -> impl Iterator<Item = &mut Portal> {
        self.portals.values_mut().chain(&mut self.unnamed_portal).map(|portal| &mut **portal)
    }

    /// Takes over the named statements of an earlier agent.
    pub(super) fn restore(&mut self, mut statements: Statements) {
        for prepared in statements.values_mut() {
            if prepared.sql.as_ref().is_some_and(|text| clipped::is_at_limit(text.as_bytes())) {
                *prepared = Arc::new(Prepared { truncated: true, ..Prepared::clone(prepared) });
            }
        }
        self.text = statements.iter().map(|(name, prepared)| prepared.size() + name.len()).sum();
        self.statements = statements;
    }

    pub(super) fn statement(&self, name: &[u8]) -> Option<&Arc<Prepared>> {
        if name.is_empty() { self.unnamed.as_ref() } else { self.statements.get(name) }
    }

    /// The unnamed statement, or the one before it, if it has just this text and these types: what it was found
    /// to be holds again.
    pub(super) fn same_unnamed(
        &self,
        text: &[u8],
        types: &[u8],
        encoding: Encoding,
    ) -> Option<&Arc<Prepared>> {
        let same = |prepared: &&Arc<Prepared>| {
            prepared.sql.as_ref().is_some_and(|sql| sql.as_bytes() == text) && *prepared.declared == *types
        };
        if encoding != Encoding::Utf8 {
            return None;
        }
        self.unnamed.iter().chain(&self.previous).find(same)
    }

    pub(super) fn define(&mut self, name: &[u8], prepared: Arc<Prepared>, limits: &Limits) {
        if name.is_empty() {
            self.unnamed = Some(prepared);
            return;
        }
        self.forget(name);
        let size = prepared.size() + name.len();
        if self.statements.len() < limits.names && self.text + size <= limits.prepared {
            self.text += size;
            self.version += 1;
            self.statements.insert(name.into(), prepared);
        }
    }

    /// Puts what was learned of a statement in the place of what was known, unless it was defined anew since.
    pub(super) fn learn(&mut self, name: &[u8], known: &Arc<Prepared>, learned: &Arc<Prepared>) {
        if self.statement(name).is_some_and(|present| Arc::ptr_eq(present, known)) {
            let (before, after) = (known.size(), learned.size());
            if name.is_empty() {
                self.unnamed = Some(Arc::clone(learned));
            } else if let Some(place) = self.statements.get_mut(name) {
                *place = Arc::clone(learned);
                self.version += 1;
                self.text = self.text.saturating_sub(before).saturating_add(after);
            }
        }
    }

    /// The statement is closed, or no longer known.
    pub(super) fn forget(&mut self, name: &[u8]) {
        if name.is_empty() {
            if let Some(unnamed) = self.unnamed.take() {
                self.previous = Some(unnamed);
            }
        } else if let Some(prepared) = self.statements.remove(name) {
            self.text = self.text.saturating_sub(prepared.size() + name.len());
            self.version += 1;
        }
    }

    /// No statement is known any more.
    pub(super) fn forget_statements(&mut self) {
        self.statements = HashMap::default();
        self.version += 1;
        self.unnamed = None;
        self.previous = None;
        self.text = 0;
    }

    pub(super) fn portal(&mut self, name: &[u8]) -> Option<&mut Portal> {
        if name.is_empty() {
            self.unnamed_portal.as_deref_mut()
        } else {
            self.portals.get_mut(name).map(|portal| &mut **portal)
        }
    }

    pub(super) fn portal_ref(&self, name: &[u8]) -> Option<&Portal> {
        if name.is_empty() {
            self.unnamed_portal.as_deref()
        } else {
            self.portals.get(name).map(|portal| &**portal)
        }
    }

    /// Opens a portal; gives the one back that it replaces.
    pub(super) fn open(&mut self, name: &[u8], portal: Box<Portal>, limits: &Limits) -> Option<Box<Portal>> {
        if name.is_empty() {
            return self.unnamed_portal.replace(portal);
        }
        let closed = self.close(name);
        if self.portals.len() < limits.names {
            self.held = self.held.saturating_add(portal.body.capacity());
            self.portals.insert(name.into(), portal);
        }
        closed
    }

    pub(super) fn close(&mut self, name: &[u8]) -> Option<Box<Portal>> {
        if name.is_empty() {
            return self.unnamed_portal.take();
        }
        let portal = self.portals.remove(name)?;
        self.held = self.held.saturating_sub(portal.body.capacity());
        Some(portal)
    }

    /// The transaction is over, and its portals with it. Gives the unnamed one back.
    pub(super) fn close_portals(&mut self) -> Option<Box<Portal>> {
        if !self.portals.is_empty() {
            self.portals = HashMap::default();
            self.held = 0;
        }
        self.unnamed_portal.take()
    }

    /// Bytes held by the portals.
    pub(super) fn held(&self) -> usize {
        self.held + self.unnamed_portal.as_ref().map_or(0, |portal| portal.body.capacity())
    }
}

/// Makes `place` hold `value`: nothing is counted where it does already.
pub(super) fn renew<T: ?Sized>(place: &mut Option<Arc<T>>, value: Option<&Arc<T>>) {
    match (&*place, value) {
        (Some(known), Some(value)) if Arc::ptr_eq(known, value) => {}
        (None, None) => {}
        (_, value) => *place = value.cloned(),
    }
}

/// The columns of a portal of `statement` whose Bind asked for `formats`; keeps them for the next.
pub(super) fn bound_columns(
    names: &mut Names,
    name: &[u8],
    statement: &mut Arc<Prepared>,
    formats: &[u8],
) -> Option<Arc<[Column]>> {
    let columns = statement.columns.as_ref()?;
    if formats.iter().all(|byte| *byte == 0) {
        return Some(Arc::clone(columns));
    }
    if let Some(bound) = statement.bound.as_ref().filter(|bound| *bound.bytes == *formats) {
        return Some(Arc::clone(&bound.columns));
    }
    let bound = Described::bind(columns, formats);
    let columns = Arc::clone(&bound.columns);
    let learned = Arc::new(Prepared { bound: Some(bound), ..Prepared::clone(statement) });
    names.learn(name, statement, &learned);
    *statement = learned;
    Some(columns)
}
