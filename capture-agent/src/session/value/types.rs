//! Which binary format a type has: the OIDs of `src/include/catalog/pg_type.dat`, which never change.

/// How a type's binary format is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Bytea,
    Char,
    /// Text in the client's encoding.
    Text,
    /// A version byte, then text.
    VersionedText,
    Int2,
    Int4,
    Int8,
    Uint4,
    Uint8,
    Float4,
    Float8,
    Numeric,
    Money,
    Date,
    Time,
    TimeTz,
    Timestamp,
    TimestampTz,
    Interval,
    Uuid,
    Inet,
    Macaddr,
    Macaddr8,
    Lsn,
    Tid,
    Bits,
    Snapshot,
    Point,
    Lseg,
    Path,
    Box,
    Polygon,
    Line,
    Circle,
    TsVector,
    TsQuery,
    /// `int2vector` and `oidvector`: sent as arrays, printed as lists.
    Vector,
    /// An array; its elements' type is in the value.
    Array,
    /// A record; its fields' types are in the value.
    Record,
    /// A range over the type with this OID.
    Range(u32),
    /// A multirange over the type with this OID.
    Multirange(u32),
    /// No type with a fixed OID, or one without a binary format.
    Unknown,
}

impl Kind {
    /// The format of the type with this OID.
    pub(super) fn of(type_oid: u32) -> Self {
        match type_oid {
            16 => Self::Bool,
            17 => Self::Bytea,
            18 => Self::Char,
            // name, text, json, xml, pg_node_tree, unknown, bpchar, varchar, refcursor, cstring, void
            19 | 25 | 114 | 142 | 194 | 705 | 1042 | 1043 | 1790 | 2275 | 2278 => Self::Text,
            // jsonb, jsonpath
            3802 | 4072 => Self::VersionedText,
            20 => Self::Int8,
            21 => Self::Int2,
            23 => Self::Int4,
            // regproc, oid, xid, cid, regprocedure, regoper, regoperator, regclass, regtype, regconfig,
            // regdictionary, regnamespace, regrole, regcollation
            24 | 26 | 28 | 29 | 2202..=2206 | 3734 | 3769 | 4089 | 4096 | 4191 => Self::Uint4,
            5069 => Self::Uint8,
            22 | 30 => Self::Vector,
            27 => Self::Tid,
            600 => Self::Point,
            601 => Self::Lseg,
            602 => Self::Path,
            603 => Self::Box,
            604 => Self::Polygon,
            628 => Self::Line,
            718 => Self::Circle,
            650 | 869 => Self::Inet,
            700 => Self::Float4,
            701 => Self::Float8,
            774 => Self::Macaddr8,
            790 => Self::Money,
            829 => Self::Macaddr,
            1082 => Self::Date,
            1083 => Self::Time,
            1114 => Self::Timestamp,
            1184 => Self::TimestampTz,
            1186 => Self::Interval,
            1266 => Self::TimeTz,
            1560 | 1562 => Self::Bits,
            1700 => Self::Numeric,
            2249 => Self::Record,
            2950 => Self::Uuid,
            2970 | 5038 => Self::Snapshot,
            3220 => Self::Lsn,
            3614 => Self::TsVector,
            3615 => Self::TsQuery,
            3904 => Self::Range(INT4),
            3906 => Self::Range(NUMERIC),
            3908 => Self::Range(TIMESTAMP),
            3910 => Self::Range(TIMESTAMPTZ),
            3912 => Self::Range(DATE),
            3926 => Self::Range(INT8),
            4451 => Self::Multirange(INT4),
            4532 => Self::Multirange(NUMERIC),
            4533 => Self::Multirange(TIMESTAMP),
            4534 => Self::Multirange(TIMESTAMPTZ),
            4535 => Self::Multirange(DATE),
            4536 => Self::Multirange(INT8),
            // Arrays in the order of their elements: of pg_type's scalars; of catalog types; of ranges; anyarray.
            143 | 199 | 271 | 629 | 651 | 719 | 775 | 791 => Self::Array,
            1000..=1003 | 1005..=1022 | 1027 | 1028 | 1040 | 1041 | 1115 | 1182 | 1183 | 1185 | 1187 => {
                Self::Array
            }
            1231 | 1263 | 1270 | 1561 | 1563 | 2201 | 2207..=2211 | 2287 | 2949 | 2951 => Self::Array,
            3221 | 3643 | 3645 | 3735 | 3770 | 3807 | 4073 | 4090 | 4097 | 4192 | 5039 => Self::Array,
            3905 | 3907 | 3909 | 3911 | 3913 | 3927 | 6150..=6153 | 6155 | 6157 => Self::Array,
            // anyarray, as columns of pg_stats have it, and anycompatiblearray
            2277 | 5078 => Self::Array,
            _ => Self::Unknown,
        }
    }

    /// Whether it is only known at its end that a value is well formed.
    pub(super) fn is_composed(self) -> bool {
        matches!(
            self,
            Self::Snapshot
                | Self::Path
                | Self::Polygon
                | Self::TsVector
                | Self::TsQuery
                | Self::Vector
                | Self::Array
                | Self::Record
                | Self::Range(_)
                | Self::Multirange(_)
        )
    }
}

const INT8: u32 = 20;
const INT4: u32 = 23;
const DATE: u32 = 1082;
const TIMESTAMP: u32 = 1114;
const TIMESTAMPTZ: u32 = 1184;
const NUMERIC: u32 = 1700;

/// The character between the elements of an array: `typdelim`, a semicolon for `box` alone.
pub(super) fn delimiter(element: u32) -> char {
    if Kind::of(element) == Kind::Box { ';' } else { ',' }
}
