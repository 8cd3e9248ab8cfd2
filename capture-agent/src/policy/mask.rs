//! Masking rules: `[[mask]]` of the configuration file, what they are about and what they leave of a value.

use super::Policy;
use super::condition::{Condition, Outcome};
use super::decide::outcome;
use super::facts::{SessionFacts, StatementFacts};
use super::fields::{FIELDS, Field};

/// A rule about values that are not to be recorded as they are.
#[derive(Clone, Debug, PartialEq)]
pub struct MaskRule {
    /// Its name, unique in the policy.
    pub name: String,
    /// Columns whose values it is about.
    pub columns: Vec<ColumnPattern>,
    /// What values look like that it is about, wherever they stand.
    pub patterns: Vec<ValuePattern>,
    /// Parameters that it is about.
    pub params: Option<ParamMask>,
    /// What it leaves of a value.
    pub strategy: Strategy,
    /// Of which sessions; all if none.
    pub(super) matching: Option<Condition>,
}

/// Parameters that a rule is about, whatever they are compared with or stored in.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamMask {
    /// Their numbers, from 1; none if it is about all of them.
    pub numbers: Option<Vec<u16>>,
    /// Of which statements; all if none.
    pub(super) when: Option<Condition>,
}

/// What is left of a masked value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Nothing but that there was one.
    #[default]
    Redact,
    /// Its last characters.
    Partial,
    /// A keyed hash: equal values stay equal.
    Hash,
}

/// Which columns a rule is about: `schema.table.column` or `table.column`, where `*` is any.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ColumnPattern {
    /// The schema; any if none.
    pub schema: Option<String>,
    /// The table; any if none.
    pub table: Option<String>,
    /// The column; any if none.
    pub column: Option<String>,
}

/// What a value looks like that is to be masked; each kind is checked as far as its form allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValuePattern {
    /// A payment card's number: 12 to 19 digits with a known first digit and Luhn's checksum.
    Card,
    /// An International Bank Account Number: length by country, and the remainder 1 of its division by 97 (ISO 13616).
    Iban,
    /// A social security number of the United States, written with separators, of an area that is issued.
    Ssn,
    /// An e-mail address.
    Email,
    /// A JSON Web Token: three parts, of which the first is a JSON object (RFC 7519).
    Jwt,
    /// A private key in PEM format.
    Pem,
    /// A key or token of a cloud's or forge's API, by its own prefix and length.
    CloudKey,
}

impl ValuePattern {
    /// The words of the configuration file.
    pub const ALL: [(&'static str, Self); 7] = [
        ("card", Self::Card),
        ("iban", Self::Iban),
        ("ssn", Self::Ssn),
        ("email", Self::Email),
        ("jwt", Self::Jwt),
        ("pem", Self::Pem),
        ("cloud_key", Self::CloudKey),
    ];
}

impl ColumnPattern {
    /// Reads `schema.table.column` or `table.column`.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read(text: &str) -> Result<Self, &'static str> {
        let parts: Vec<&str> = text.split('.').collect();
        let part = |part: &&str| (*part != "*").then(|| (*part).to_owned());
        if parts.iter().any(|part| part.is_empty() || (part.contains('*') && *part != "*")) {
            return Err("a part is empty, or has a `*` beside other characters");
        }
        match parts.as_slice() {
            [table, column] => Ok(Self { schema: None, table: part(table), column: part(column) }),
            [schema, table, column] => {
                Ok(Self { schema: part(schema), table: part(table), column: part(column) })
            }
            _ => Err("expected table.column or schema.table.column"),
        }
    }
}

impl MaskRule {
    /// Whether the rule is about a session: also if that is not certain, since a value that was recorded cannot be
    /// taken back.
    pub fn is_about(&self, session: &SessionFacts) -> bool {
        outcome(self.matching.as_ref(), session, None) != Outcome::False
    }
}

impl ParamMask {
    /// Whether it asks what a statement does.
    pub fn asks(&self) -> bool {
        self.when.is_some()
    }

    /// Whether it is about a statement's parameters; also if that is not certain, or nothing is known of the statement.
    pub fn is_about(&self, stmt: Option<&StatementFacts>) -> bool {
        outcome(self.when.as_ref(), &SessionFacts::default(), stmt) != Outcome::False
    }

    /// What its condition must not ask for: all but the text and what that does, since one answer holds for each time
    /// that the text is executed.
    pub(super) fn foreign(when: &Condition) -> Option<&'static str> {
        let foreign = |field: &Field| {
            let info = FIELDS.iter().find(|info| info.field == *field)?;
            let own = info.object == "stmt" && !matches!(field, Field::Params | Field::Protocol);
            (!own).then_some(info.name)
        };
        when.reads().iter().find_map(foreign)
    }
}

impl Policy {
    /// The masking rules, in the file's order: of several that are about a value the first one counts.
    pub fn mask_rules(&self) -> &[MaskRule] {
        &self.masks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::RowLimits;

    #[test]
    fn columns_are_written_with_points() {
        let read = |text: &str| ColumnPattern::read(text);
        let some = |text: &str| Some(text.to_owned());
        let expected =
            ColumnPattern { schema: some("public"), table: some("customers"), column: some("ssn") };
        assert_eq!(read("public.customers.ssn"), Ok(expected));
        assert_eq!(
            read("*.password"),
            Ok(ColumnPattern { schema: None, table: None, column: some("password") })
        );
        for wrong in ["ssn", "a.b.c.d", "a..b", ".b", "a.b*", ""] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rule_is_checked_and_each_error_has_its_line() {
        let compile = |text: &str| Policy::compile(text, RowLimits::default());
        let text = "[[mask]]\nname = 'm'\nmatch = 'session.user == \"a\"'\ncolumns = ['t.c']\nstrategy = 'hash'\n\
                    [[mask]]\nname = 'n'\npatterns = ['card', 'cloud_key']\nparams = 'all'\n";
        let policy = compile(text).unwrap();
        let [first, second] = policy.mask_rules() else { panic!("{policy:?}") };
        assert_eq!((first.strategy, first.columns.len()), (Strategy::Hash, 1));
        assert_eq!(second.patterns, [ValuePattern::Card, ValuePattern::CloudKey]);
        assert_eq!(second.params, Some(ParamMask { numbers: None, when: None }));
        assert_eq!(second.strategy, Strategy::Redact);
        let user = |name: &str| SessionFacts { user: Some(name.into()), ..SessionFacts::default() };
        assert!(first.is_about(&user("a")) && !first.is_about(&user("b")));
        // Of whom nothing is known it may be.
        assert!(first.is_about(&SessionFacts::default()));
        for (wrong, line, words) in [
            ("[[mask]]\ncolumns = ['t.c']\n", 1, "without `name`"),
            ("[[mask]]\nname = 'm'\n", 1, "about nothing"),
            ("[[mask]]\nname = 'm'\ncolumns = [\n'ssn']\n", 4, "table.column"),
            ("[[mask]]\nname = 'm'\npatterns = ['cards']\n", 3, "did you mean \"card\""),
            ("[[mask]]\nname = 'm'\ncolumns = ['t.c']\nstrategy = 'sha1'\n", 4, "`strategy` is \"sha1\""),
            ("[[mask]]\nname = 'm'\ncolumns = ['t.c']\nmatch = 'stmt.text == \"\"'\n", 4, "match"),
            ("[[mask]]\nname = 'm'\ncolumn = ['t.c']\n", 3, "column"),
            ("[[mask]]\nname = 'm'\nparams = 'some'\n", 3, "a list of numbers"),
            ("[[mask]]\nname = 'm'\nparams = []\n", 3, "a list of numbers"),
            ("[[mask]]\nname = 'm'\nparams = [1, 0]\n", 3, "a list of numbers"),
            ("[[mask]]\nname = 'm'\nparams = [70000]\n", 3, "a list of numbers"),
            ("[[mask]]\nname = 'm'\nparams = [1]\nwhen = 'session.user == \"a\"'\n", 4, "`user`"),
            ("[[mask]]\nname = 'm'\nparams = [1]\nwhen = 'size(stmt.params) > 1'\n", 4, "`params`"),
            ("[[mask]]\nname = 'm'\npatterns = ['card']\nwhen = 'stmt.opaque'\n", 4, "`params`"),
            (
                "[[mask]]\nname = 'm'\nparams = [1]\ncolumns = ['a.b']\nwhen = 'stmt.opaque'\n",
                5,
                "a rule of its own",
            ),
            (
                "[[mask]]\nname = 'm'\nparams = 'all'\n[[mask]]\nname = 'm'\nparams = 'all'\n",
                4,
                "another mask",
            ),
        ] {
            let error = compile(wrong).unwrap_err().0[0].clone();
            assert!(error.line == line && error.message.contains(words), "{wrong}: {error}");
        }
    }
}
