use super::*;

fn found(text: &str, pattern: ValuePattern) -> Vec<&str> {
    if !may_have(text.as_bytes(), pattern) {
        return Vec::new();
    }
    values(text, pattern).map(|range| &text[range]).collect()
}

#[test]
fn every_pattern_compiles() {
    for regex in [&*CARD, &*IBAN, &*SSN, &*EMAIL, &*JWT, &*PEM, &*CLOUD_KEY] {
        assert!(regex.as_str().len() > 5, "{regex}");
    }
}

#[test]
fn cards_have_luhns_checksum() {
    use ValuePattern::Card;
    for card in [
        "4111111111111111",
        "4111 1111 1111 1111",
        "5500-0000-0000-0004",
        "340000000000009",
        "6011000000000004",
    ] {
        assert_eq!(found(card, Card), [card]);
        let within = format!("paid with {card}, thanks");
        assert_eq!(found(&within, Card), [card], "{within}");
    }
    for other in
        ["4111111111111112", "1234567890123456", "0000000000000000", "x4111111111111111", "411111111111"]
    {
        assert!(found(other, Card).is_empty(), "{other}");
    }
    assert_eq!(found("4111 1111 1111 1111 2027", Card), ["4111 1111 1111 1111"]);
}

#[test]
fn ibans_have_the_right_length_and_remainder() {
    use ValuePattern::Iban;
    for iban in [
        "DE89370400440532013000",
        "GB82 WEST 1234 5698 7654 32",
        "NO9386011117947",
        "FR1420041010050500013M02606",
    ] {
        assert_eq!(found(iban, Iban), [iban]);
        assert_eq!(found(&format!("to {iban} now"), Iban), [iban]);
    }
    for other in ["DE89370400440532013001", "DE8937040044053201300", "XX89370400440532013000", "AB12"] {
        assert!(found(other, Iban).is_empty(), "{other}");
    }
}

#[test]
fn social_security_numbers_are_of_issued_areas() {
    use ValuePattern::Ssn;
    for ssn in ["123-45-6789", "123 45 6789", "899-99-9999"] {
        assert_eq!(found(ssn, Ssn), [ssn]);
    }
    for other in [
        "000-12-3456",
        "666-12-3456",
        "900-12-3456",
        "123-00-4567",
        "123-45-0000",
        "123-45 6789",
        "1123-45-6789",
        "123-45-67890",
    ] {
        assert!(found(other, Ssn).is_empty(), "{other}");
    }
}

#[test]
fn addresses_have_a_domain() {
    use ValuePattern::Email;
    for mail in ["bob@example.com", "o.brien+tag@mail.example.co.uk", "jürgen@bücher.example"] {
        assert_eq!(found(&format!("<{mail}>"), Email), [mail]);
    }
    for other in ["bob@localhost", "@example.com", "a @ b.c"] {
        assert!(found(other, Email).is_empty(), "{other}");
    }
}

#[test]
fn tokens_begin_with_a_json_header() {
    use ValuePattern::Jwt;
    let token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U";
    assert_eq!(found(&format!("Bearer {token}"), Jwt), [token]);
    assert!(found("eyJub3QganNvbiBhdCBhbGw.eyJzdWIiOiIxMjM0NTY3ODkwIn0.x", Jwt).is_empty());
}

#[test]
fn private_keys_go_with_all_their_lines() {
    use ValuePattern::Pem;
    let key = "-----BEGIN RSA PRIVATE KEY-----\nMIIB\nAAAA\n-----END RSA PRIVATE KEY-----";
    assert_eq!(found(&format!("a {key} b"), Pem), [key]);
    let open = "-----BEGIN PRIVATE KEY-----\\nMIIBcut";
    assert_eq!(found(open, Pem), [open]);
    assert!(found("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----", Pem).is_empty());
}

#[test]
fn keys_of_clouds_are_known_by_their_prefix() {
    use ValuePattern::CloudKey;
    // Put together here, so that nobody's scanner takes them for real ones.
    for parts in [
        ["AKIA", "IOSFODNN7EXAMPLE"],
        ["AIza", "SyA1234567890abcdefghijklmnopqrstuv"],
        ["ghp_", "0123456789abcdefghijklmnopqrstuvwxyz"],
        ["xoxb-", "123456789012-abcdefGHIJKL"],
        ["glpat-", "abcdefghij0123456789"],
        ["sk_live_", "abcdefghijklmnop1234"],
    ] {
        let key = parts.concat();
        assert_eq!(found(&format!("key={key};"), CloudKey), [key.as_str()]);
    }
    assert!(found("AKIAshort and nothing else here", CloudKey).is_empty());
}
