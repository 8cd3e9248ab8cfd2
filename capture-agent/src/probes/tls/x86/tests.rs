//! Over the machine code of real builds: `testdata/tls` holds functions as they stand in the file, with the names of
//! what they call.

use proptest::prelude::*;

use super::*;

/// A function of a real build.
struct Sample {
    address: u64,
    code: Vec<u8>,
    calls: Vec<(u64, &'static str)>,
}

impl Sample {
    /// Lines: `# what it is`, `address A`, `calls A name`, then hexadecimal.
    fn read(text: &'static str) -> Self {
        let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
        let mut sample = Self { address: 0, code: Vec::new(), calls: Vec::new() };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            match line.split(' ').collect::<Vec<_>>().as_slice() {
                ["address", address] => sample.address = number(address),
                ["calls", address, name] => sample.calls.push((number(address), name)),
                [hex] => sample
                    .code
                    .extend(hex.as_bytes().chunks(2).map(|two| number(str::from_utf8(two).unwrap()) as u8)),
                _ => panic!("not a line of a sample: {line}"),
            }
        }
        sample
    }

    fn function(&self) -> Function<'_> {
        Function { address: self.address, code: &self.code }
    }

    fn after_call(&self, wanted: &str, int: bool) -> Result<After, NoSite> {
        after_call(self.function(), wanted, int, |target| self.name(target))
    }

    fn around_inner_call(&self) -> Result<(u64, bool, After), NoSite> {
        around_inner_call(self.function(), |target| self.name(target))
    }

    fn name(&self, target: Target) -> Option<&'static str> {
        let Target::Code(address) = target else { return None };
        self.calls.iter().find(|(at, _)| *at == address).map(|(_, name)| *name)
    }
}

macro_rules! sample {
    ($name:literal) => {
        Sample::read(include_str!(concat!("../../../../testdata/tls/", $name, ".txt")))
    };
}

fn register(register: Register) -> Operand {
    operand(Place::Register(register)).unwrap()
}

fn slot(base: Register, distance: i64) -> Operand {
    operand(Place::Slot(base, distance)).unwrap()
}

#[test]
fn behind_ssl_read_the_branch_that_failed_reads_do_not_reach_is_chosen() {
    // test rbx, rbx; js: behind SSL_get_error and the branch on its result.
    let site = sample!("debian-15-be_tls_read").after_call("SSL_read", true).unwrap();
    let (result, buffer) = (register(Register::RBX), Some(register(Register::R15)));
    assert_eq!(site, After { address: 0x34ff9d, emulated: true, result, int: true, buffer });
    let site = sample!("debian-15-be_tls_write").after_call("SSL_write", true).unwrap();
    assert_eq!(site, After { address: 0x35014d, emulated: true, result, int: true, buffer });
}

#[test]
fn a_buffer_that_was_spilled_is_found_in_its_slot() {
    let site = sample!("portable-17-be_tls_read").after_call("SSL_read", true).unwrap();
    let (result, buffer) = (register(Register::RBX), Some(slot(Register::RSP, 8)));
    assert_eq!(site, After { address: 0x2d88d1, emulated: true, result, int: true, buffer });
    let site = sample!("portable-17-be_tls_write").after_call("SSL_write", true).unwrap();
    assert_eq!((site.emulated, site.result, site.buffer), (true, result, buffer));
}

#[test]
fn in_the_caller_no_instruction_is_chosen_that_clear_sessions_reach_too() {
    let sample = sample!("debian-15-secure_read");
    let (result, buffer) = (register(Register::RBX), Some(register(Register::R14)));
    let tls = sample.after_call("be_tls_read", false).unwrap();
    assert_eq!(tls, After { address: 0x34485f, emulated: true, result, int: false, buffer });
    let gss = sample.after_call("be_gssapi_read", false).unwrap();
    assert_eq!(gss, After { address: 0x34489f, emulated: true, result, int: false, buffer });
    // Behind this jump the paths of clear and encrypted sessions meet.
    let site = sample!("portable-17-secure_read").after_call("be_tls_read", false).unwrap();
    assert_eq!((site.address, site.emulated), (0x2ce36f, true));
    assert_eq!((site.result, site.buffer), (register(Register::RBP), Some(register(Register::R12))));
    let tls = sample!("debian-15-secure_write").after_call("be_tls_write", false).unwrap();
    assert_eq!((tls.address, tls.emulated), (0x3449d7, true));
    assert!(sample!("portable-17-secure_write").after_call("be_tls_write", false).unwrap().emulated);
}

#[test]
fn the_librarys_functions_are_probed_around_the_call_they_share() {
    for (sample, call, branch) in [
        (sample!("openssl-3.0-SSL_read"), 0x3544e, 0x35455),
        (sample!("openssl-3.0-SSL_write"), 0x3599e, 0x359a5),
        (sample!("openssl-1.1-SSL_read"), 0x3636e, 0x36375),
        (sample!("openssl-1.1-SSL_write"), 0x3662e, 0x36635),
    ] {
        let (before, emulated, after) = sample.around_inner_call().unwrap();
        assert_eq!((before, emulated), (call, true));
        let result = register(Register::RAX);
        assert_eq!(after, After { address: branch, emulated: true, result, int: true, buffer: None });
    }
}

#[test]
fn without_a_branch_behind_the_call_the_dear_instruction_is_named_as_such() {
    for sample in [
        sample!("openssl-3.0-SSL_read_ex"),
        sample!("openssl-3.0-SSL_write_ex"),
        sample!("openssl-1.1-SSL_read_ex"),
        sample!("openssl-1.1-SSL_write_ex"),
    ] {
        let (_, emulated, after) = sample.around_inner_call().unwrap();
        assert!(emulated && !after.emulated, "{after:?}");
        assert_eq!(after.result, register(Register::RAX));
    }
}

#[test]
fn a_function_without_the_call_has_no_site() {
    assert_eq!(sample!("debian-15-be_tls_read").after_call("SSL_write", true), Err(NoSite::NoCall));
    assert_eq!(sample!("portable-17-secure_read").after_call("be_gssapi_read", false), Err(NoSite::NoCall));
    assert_eq!(Sample::read("address 0x1000\nc3").around_inner_call(), Err(NoSite::NoCall));
}

#[test]
fn a_buffer_that_does_not_survive_the_call_makes_no_site() {
    // call 0x1010; test rax, rax; js: the buffer stands in rsi only, which the called function may change.
    let sample = Sample::read("address 0x1000\ncalls 0x1010 f\ne80b0000004885c07800c3");
    assert_eq!(sample.after_call("f", false), Err(NoSite::Lost));
    // mov rsi, rbx before it: rbx survives.
    let sample = Sample::read("address 0x1000\ncalls 0x1010 f\n4889dee8080000004885c07800c3");
    let site = sample.after_call("f", false).unwrap();
    assert_eq!((site.address, site.buffer), (0x100b, Some(register(Register::RBX))));
    // push rbx behind it moves rsp: a slot that was named by rsp before names another one then.
    let sample = Sample::read("address 0x1000\ncalls 0x1010 f\n488b742408e806000000534885c07800c3");
    let site = sample.after_call("f", false).unwrap();
    assert_eq!((site.address, site.buffer), (0x100a, Some(slot(Register::RSP, 8))));
}

#[test]
fn a_linkage_tables_entry_leads_to_its_slot() {
    // jmp [rip+0x100]; bnd jmp behind endbr64.
    assert_eq!(linkage_slot(&[0xff, 0x25, 0, 1, 0, 0], 0x1000), Some(0x1106));
    assert_eq!(linkage_slot(&[0xf3, 0x0f, 0x1e, 0xfa, 0xf2, 0xff, 0x25, 0, 1, 0, 0], 0x1000), Some(0x110b));
    assert_eq!(linkage_slot(&[0x90, 0xff, 0x25, 0, 1, 0, 0], 0x1000), None);
    assert_eq!(linkage_slot(&[], 0), None);
}

#[test]
fn the_kernels_list_of_emulated_instructions_is_kept() {
    for emulated in
        [&[0xe8, 0, 0, 0, 0][..], &[0x7f, 1], &[0x0f, 0x88, 0, 0, 0, 0], &[0x55], &[0x41, 0x57], &[0x90]]
    {
        assert!(is_emulated(emulated), "{emulated:x?}");
    }
    // sub, mov, ret, an operand-size prefix, cmov, nopl.
    for stepped in [
        &[0x48, 0x83, 0xec, 8][..],
        &[0x89, 0xc3],
        &[0xc3],
        &[0x66, 0x90],
        &[0x0f, 0x48, 0xc2],
        &[0x0f, 0x1f, 0],
    ] {
        assert!(!is_emulated(stepped), "{stepped:x?}");
    }
}

proptest! {
    #[test]
    fn garbled_code_yields_a_site_inside_the_function_or_none(
        which in 0..6_usize,
        garbage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
        cut in any::<prop::sample::Index>(),
        address in prop_oneof![Just(0), Just(u64::MAX - 60), any::<u64>()],
    ) {
        let samples = [
            (sample!("debian-15-be_tls_read"), "SSL_read"),
            (sample!("portable-17-be_tls_write"), "SSL_write"),
            (sample!("debian-15-secure_read"), "be_gssapi_read"),
            (sample!("portable-17-secure_write"), "be_tls_write"),
            (sample!("openssl-3.0-SSL_read"), ""),
            (sample!("openssl-1.1-SSL_write_ex"), ""),
        ];
        let (sample, wanted) = &samples[which];
        let mut code = sample.code.clone();
        for (index, byte) in garbage {
            *index.get_mut(&mut code) = byte;
        }
        code.truncate(cut.index(code.len() + 1));
        // With and without the addresses that the sample's calls have.
        for address in [address, sample.address] {
            let function = Function { address, code: &code };
            let end = address.wrapping_add(code.len() as u64);
            let within = |at: u64| at.wrapping_sub(address) < end.wrapping_sub(address);
            if let Ok(site) = after_call(function, wanted, true, |target| sample.name(target)) {
                prop_assert!(within(site.address));
            }
            if let Ok((before, _, after)) = around_inner_call(function, |target| sample.name(target)) {
                prop_assert!(within(before) && within(after.address));
            }
        }
    }
}
