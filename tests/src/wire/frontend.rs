//! Frontend messages, as bytes. PostgreSQL documentation, "Message Formats".

/// A message with its type byte and length.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend(length(body.len() + 4));
    bytes.extend(body);
    bytes
}

/// A message whose body is one string.
pub fn text(tag: u8, text: &str) -> Vec<u8> {
    message(tag, &string(text))
}

/// Query.
pub fn query(sql: &str) -> Vec<u8> {
    text(b'Q', sql)
}

/// Parse, Bind, Execute and Sync of the unnamed statement.
pub fn once(sql: &str, values: &[&str]) -> Vec<Vec<u8>> {
    let values: Vec<_> = values.iter().map(|value| Some(value.as_bytes().to_vec())).collect();
    vec![parse("", sql, &[]), bind("", "", &[], &values, &[]), execute("", 0), message(b'S', b"")]
}

/// Parse.
pub fn parse(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    let mut body = string(name);
    body.extend(string(sql));
    body.extend(count(types.len()));
    body.extend(types.iter().flat_map(|oid| oid.to_be_bytes()));
    message(b'P', &body)
}

/// Bind. Formats are 0 for text and 1 for binary.
pub fn bind(
    portal: &str,
    statement: &str,
    formats: &[u16],
    values: &[Option<Vec<u8>>],
    result_formats: &[u16],
) -> Vec<u8> {
    let mut body = string(portal);
    body.extend(string(statement));
    body.extend(arguments(formats, values));
    body.extend(list(result_formats));
    message(b'B', &body)
}

/// Describe or Close: `tag` is `D` or `C`, `kind` is `S` for a statement and `P` for a portal.
pub fn target(tag: u8, kind: u8, name: &str) -> Vec<u8> {
    let mut body = vec![kind];
    body.extend(string(name));
    message(tag, &body)
}

/// Execute; 0 rows mean all.
pub fn execute(portal: &str, rows: u32) -> Vec<u8> {
    let mut body = string(portal);
    body.extend(rows.to_be_bytes());
    message(b'E', &body)
}

/// FunctionCall.
pub fn function_call(oid: u32, formats: &[u16], values: &[Option<Vec<u8>>], result_format: u16) -> Vec<u8> {
    let mut body = oid.to_be_bytes().to_vec();
    body.extend(arguments(formats, values));
    body.extend(result_format.to_be_bytes());
    message(b'F', &body)
}

/// SASLInitialResponse.
pub fn sasl_initial(mechanism: &str, data: &[u8]) -> Vec<u8> {
    let mut body = string(mechanism);
    body.extend(length(data.len()));
    body.extend(data);
    message(b'p', &body)
}

/// StartupMessage; `version` is the major version in the upper half, the minor in the lower.
pub fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend(string(name));
        body.extend(string(value));
    }
    body.push(0);
    untagged(&body)
}

/// SSLRequest (80877103) or GSSENCRequest (80877104).
pub fn request(code: u32) -> Vec<u8> {
    untagged(&code.to_be_bytes())
}

/// CancelRequest.
pub fn cancel(pid: u32, secret: &[u8]) -> Vec<u8> {
    let mut body = 80_877_102_u32.to_be_bytes().to_vec();
    body.extend(pid.to_be_bytes());
    body.extend(secret);
    untagged(&body)
}

fn untagged(body: &[u8]) -> Vec<u8> {
    let mut bytes = length(body.len() + 4).to_vec();
    bytes.extend(body);
    bytes
}

fn arguments(formats: &[u16], values: &[Option<Vec<u8>>]) -> Vec<u8> {
    let mut bytes = list(formats);
    bytes.extend(count(values.len()));
    for value in values {
        match value {
            Some(value) => {
                bytes.extend(length(value.len()));
                bytes.extend(value);
            }
            None => bytes.extend((-1_i32).to_be_bytes()),
        }
    }
    bytes
}

fn list(formats: &[u16]) -> Vec<u8> {
    let mut bytes = count(formats.len()).to_vec();
    bytes.extend(formats.iter().flat_map(|format| format.to_be_bytes()));
    bytes
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn count(items: usize) -> [u8; 2] {
    u16::try_from(items).unwrap_or(u16::MAX).to_be_bytes()
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes()
}
