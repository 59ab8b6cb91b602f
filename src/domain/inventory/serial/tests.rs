//! Texts that real machines report, fillers and serials, and laws about both.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::testing::hostile::{assert_fit, cases, text};

/// Texts with the reason why each is no serial.
type Judged = (InvalidSerial, &'static [&'static str]);

/// Fillers by the public source that lists them.
const FILLERS: [(&str, &[Judged]); 13] = [
    (
        "OCS Inventory: bad_serial in Apache/Ocsinventory/Server/Duplicate.pm",
        &[
            (
                InvalidSerial::Placeholder,
                &[
                    "N/A",
                    "(null string)",
                    "INVALID",
                    "none",
                    "To Be Filled By O.E.M.",
                    "Tulip Computers",
                ],
            ),
            (
                InvalidSerial::Sequence,
                &[
                    "SYS-1234567890",
                    "SYS-9876543210",
                    "SN-12345",
                    "SN-1234567890",
                    "0123456789",
                    "12345",
                    "123456",
                    "1234567",
                    "12345678",
                    "123456789",
                    "1234567890",
                    "123456789000",
                    "12345678901234567",
                ],
            ),
            (
                InvalidSerial::Repeated,
                &[
                    "1",
                    "1111111",
                    "1111111111",
                    "000000",
                    "0000000000",
                    "NNNNNNN",
                    "xxxxxxxxxxx",
                ],
            ),
            (
                InvalidSerial::TestValue,
                &["EVAL", "IATPASS", "SN-123456fvgv3i0b8o5n6n7k"],
            ),
            (InvalidSerial::FieldName, &["Serial Number xxxxxx"]),
        ],
    ),
    (
        "FusionInventory and GLPI: blacklists; fusioninventory-for-glpi#829, #873",
        &[
            (
                InvalidSerial::Placeholder,
                &["Unknow", "Not Specified", "empty", "Not"],
            ),
            (
                InvalidSerial::FieldName,
                &["System Serial Number", "SystemSerialNumb", "OEM_Serial"],
            ),
        ],
    ),
    (
        "ChromiumOS: flex_id/flex_id.cc",
        &[
            (
                InvalidSerial::Placeholder,
                &[
                    "to be filled by o.e.m",
                    "default string",
                    "default_string",
                    "not applicable",
                    "na",
                    "oem",
                    "91.WTx00.xPxx",
                ],
            ),
            (
                InvalidSerial::FieldName,
                &[
                    "system_serial_number",
                    "system serial#",
                    "serial#",
                    "$serialnumber$",
                ],
            ),
            (InvalidSerial::Sequence, &["ssn12345678901234567"]),
        ],
    ),
    (
        "Free Geek: migrations of freegeek-pdx/fgdb.rb",
        &[
            (
                InvalidSerial::Sequence,
                &[
                    "EeePC-1234567890",
                    "01234567",
                    "0123456789AB",
                    "0123456789ABCDEF",
                    "MB-1234567890",
                ],
            ),
            (InvalidSerial::Repeated, &["= '00000000'"]),
            (InvalidSerial::Punctuation, &["..              .", "$"]),
            (
                InvalidSerial::Placeholder,
                &["Not Available", "Bank0/1", "12", "DELL"],
            ),
            (InvalidSerial::FieldName, &["FIELD"]),
            (InvalidSerial::TestValue, &["X312345678"]),
        ],
    ),
    (
        "lshw and dmidecode in forum threads: ASUS, JVC and MSI boards",
        &[
            (
                InvalidSerial::Sequence,
                &["BSN12345678901234567", "BSS-0123456789", "EeePC-0123456789"],
            ),
            (InvalidSerial::FieldName, &["Chassis Serial Number"]),
        ],
    ),
    (
        "Chromium: BAD_MACHINE_IDS of the device management test server; Samsung's boards",
        &[(InvalidSerial::TestValue, &["123490EN400015"])],
    ),
    (
        "Insyde firmware: strings of SMBIOS types 1 to 3",
        &[
            (InvalidSerial::Sequence, &["Type1 - 123456789"]),
            (
                InvalidSerial::FieldName,
                &[
                    "Type2 - Board Serial Number",
                    "Type3 - Chassis Serial Number",
                ],
            ),
            (
                InvalidSerial::Placeholder,
                &["Type1 - TBD by OEM", "Type1ProductConfigId"],
            ),
        ],
    ),
    (
        "FOG: placeholders of its host registration",
        &[
            (
                InvalidSerial::Placeholder,
                &[
                    "Not Present",
                    "Not Settable",
                    "To Be Set By OEM",
                    ".PCIE2",
                    "00020003-0004-0005-0006-000700080009",
                    "12345678-1234-5678-90AB-CDDEEFAABBCC",
                ],
            ),
            (
                InvalidSerial::FieldName,
                &[
                    "Enter Serial",
                    "Base Board Serial Number",
                    "Chassis Asset Tag",
                    "No Asset Tag",
                ],
            ),
        ],
    ),
    (
        "dmidecode: its own texts",
        &[(
            InvalidSerial::Placeholder,
            &["<OUT OF SPEC>", "<BAD INDEX>", "Not Provided"],
        )],
    ),
    (
        "Scripts of inventories and licences on GitHub",
        &[
            (
                InvalidSerial::Placeholder,
                &[
                    "0A",
                    "null",
                    "default",
                    "undefined",
                    "none1",
                    "fill by oem",
                    "OEM Default String",
                    "to be filled",
                    "To Be Filled By O.E.M. by More String",
                    "GXXXXXXXXXXXX",
                    "standard",
                ],
            ),
            (
                InvalidSerial::FieldName,
                &[
                    "SystemSerialNumber",
                    "windows_sn",
                    "sernum0",
                    "No Serial Number",
                    "System Product Name",
                    "System",
                ],
            ),
            (InvalidSerial::Sequence, &["NB-1234567890", "123456"]),
            (
                InvalidSerial::Repeated,
                &[
                    "ff-FF-ff-FF",
                    "0000 0000 0000",
                    "FFFFFFFF",
                    "0000-0000-0000",
                ],
            ),
            (InvalidSerial::Punctuation, &["-- --", "............"]),
        ],
    ),
    (
        "tailscale#12566, lf-edge/eve#6381, fleetdm/fleet#51180, Dasharo/dasharo-issues#730",
        &[(
            InvalidSerial::Placeholder,
            &["Default string", "unspecified", "Defaultstring", "O.E.M."],
        )],
    ),
    (
        "Cut to the length of a field",
        &[
            (
                InvalidSerial::Placeholder,
                &[
                    "To be fi",
                    "To be filled by O.E",
                    "Default ",
                    "Default s",
                    "Default strin",
                    "Not Specifie",
                    "Not Avai",
                    "oem default string inject xxxxxxxxxx",
                ],
            ),
            (
                InvalidSerial::FieldName,
                &[
                    "SYSTEMSERIAL",
                    "System Se",
                    "System S",
                    "Chassis Seri",
                    "Base Board Ser",
                    "SerialNu",
                ],
            ),
        ],
    ),
    (
        "Combined forms",
        &[
            (
                InvalidSerial::Sequence,
                &["Serial Number 12345", "SN 43210000", "FEDCBA9876543210"],
            ),
            (InvalidSerial::Repeated, &["SN-00000000"]),
            (
                InvalidSerial::Alternating,
                &["ABABAB", "1010", "01-01-01-01-01", "F0F0F0F"],
            ),
            (
                InvalidSerial::TestValue,
                &["TEST", "Test Serial", "testing 123", "TEST-01"],
            ),
            (InvalidSerial::Placeholder, &["Serial number not available"]),
        ],
    ),
];

/// Serials by maker, in the forms that public sources show. Some characters of real ones are changed: they belong to somebody.
const SERIALS: [(&str, &[&str]); 22] = [
    (
        "HP: dmidecode in forums and scripts for Autopilot",
        &[
            "5CG1234ABC",
            "5CG0523GYK",
            "4CE0123456",
            "CND12345AB",
            "MXL4321XYZ",
        ],
    ),
    (
        "HP: base boards, dmidecode in a forum thread",
        &["PCEVF00WB1CMDA", "PCWKV001YAB0CD"],
    ),
    (
        "Dell: Dasharo/dasharo-issues#155, amidaware/rmmagent#42",
        &["5Q4Q8Y1", "77NDX12", "5CD2X13", "BX12345", "1234567A"],
    ),
    (
        "Dell: base boards, the same",
        &["/5Q4Q8Y1/CN7220036H05RB/", "/77NDX12/CN70163475008D/"],
    ),
    (
        "Lenovo: dmidecode in reports about ThinkPads",
        &[
            "PF012345",
            "PF123456",
            "PC0ABCDE",
            "PF3JXH3K",
            "MP1234AB",
            "R90ABCDE",
            "L1HF64902PA",
        ],
    ),
    (
        "Apple: system_profiler and OpenCore guides",
        &["C02D91CNPV4M", "C02MH6Y3F5V7", "ZV4HQ7K2LM", "FVFXC2ABCDEF"],
    ),
    (
        "Microsoft Surface: jakeday/linux-surface#276",
        &[
            "015230394853",
            "014326580153",
            "012345678912",
            "A74603121084839A",
        ],
    ),
    (
        "ASUS: the maker's form, without a source",
        &["L1N0CV123456789", "M3NRKD01234567A"],
    ),
    ("ASRock: GoofyNest/HardwareSpoofing", &["BR80YGDXZ68ICQ5"]),
    (
        "MSI: fusioninventory-for-glpi#2823",
        &["I6F0024438", "K2419N0012345"],
    ),
    (
        "Acer: base boards in licence checks",
        &[
            "NBG6Z110037018ABAB3400",
            "NBQ5911006222817C8MX00",
            "NBG12345AB",
        ],
    ),
    (
        "Samsung: machine records on GitHub",
        &["0AEQ9QEX307271R", "S937NBB6111AHXMB"],
    ),
    ("Toshiba: lshw in a forum thread", &["7C664873R"]),
    ("Prestigio: lshw in a forum thread", &["PMP250364210695"]),
    ("Razer: openrazer/openrazer#2", &["BY1234M12345678"]),
    (
        "Small makers: their form, without a source",
        &["M3MRCG005810LMB", "GTR7-23A4567"],
    ),
    (
        "VMware: elastic/integrations test-host.log, amidaware/rmmagent#42",
        &[
            "VMware-56 4d d1 1f 26 c9 31 7d-aa 2e 01 02 37 ac a0 16",
            "VMware-56 4d fb 72 69 7a 38 13-aa 0e 17 16 9b 09 42 c8",
            "VMware-42 00 00 00 00 00 00 00-00 00 00 00 00 00 00 01",
        ],
    ),
    (
        "Parallels: RMM and VM-detection code",
        &[
            "Parallels-1A 1C CB 3B 64 67 4B 13 86 B1 86 FF 7E 2B 20 30",
            "Parallels-47 ED 38 2A 33 1C 4C 75 94 1F F7 AF 86 63 C0 C4",
        ],
    ),
    (
        "Hyper-V and Azure: Linux kernel mailing list",
        &[
            "0000-0002-8036-1208-7688-3134-50",
            "0000-0010-5437-9599-5325-4477-46",
            "0000-0012-3456-7890-1234-5678-90",
        ],
    ),
    (
        "Amazon EC2: \"Detect whether a host is an EC2 instance\" in its user guide",
        &[
            "ec2f3a1b-5c6d-7e8f-9a0b-1c2d3e4f5a6b",
            "i-0123456789abcdef1",
        ],
    ),
    (
        "Google Compute Engine: dmidecode 3.3 to 3.5",
        &[
            "GoogleCloud-99A24A36AF370371125786491148D98B",
            "GoogleCloud-ABCDEF1234567890ABCDEF1234567890",
            "GoogleCloud-12345",
        ],
    ),
    (
        "QEMU and other virtual machines: UUIDs and base64",
        &[
            "4c4c4544-005a-5910-8042-b4c04f543535",
            "73D90500-5BDB-11E3-89FC-3C07716E634B",
            "12345678-1234-1234-1234-1234567890AB",
            "VM5vodACsc+k",
            "VM-web-01",
            "TEST0001",
            "System76",
        ],
    ),
];

fn fillers() -> impl Iterator<Item = (&'static str, InvalidSerial)> {
    let lists = FILLERS.iter().flat_map(|(_, lists)| lists.iter());
    lists.flat_map(|(reason, texts)| texts.iter().map(|text| (*text, *reason)))
}

fn serials() -> impl Iterator<Item = &'static str> {
    SERIALS.iter().flat_map(|(_, texts)| texts.iter().copied())
}

fn identify(text: &str) -> Result<Serial, InvalidSerial> {
    Serial::identify(text, &IgnoredSerials::default())
}

fn ignoring(entries: &[&str]) -> IgnoredSerials {
    serde_json::from_value(serde_json::json!(entries)).unwrap()
}

#[test]
fn fillers_of_public_lists_identify_no_machine() {
    let wrong: Vec<_> = fillers()
        .map(|(text, reason)| (text, identify(text), Err(reason)))
        .filter(|(_, judged, expect)| judged != expect)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(fillers().count() >= 60);
}

#[test]
fn serials_of_all_makers_identify_a_machine() {
    for text in serials() {
        assert_eq!(identify(text), Serial::parse(text), "{text:?}");
    }
    assert!(serials().count() >= 40);
}

#[test]
fn serials_are_trimmed_and_folded() {
    for (text, expect) in [
        (" c02d91cnpv4m\t", "C02D91CNPV4M"),
        ("To be\u{a0}Filled", "TO BE\u{a0}FILLED"),
        (
            "VMware-56 4d d1 1f 26 c9 31 7d-aa 2e 01 02 37 ac a0 16",
            "VMWARE-56 4D D1 1F 26 C9 31 7D-AA 2E 01 02 37 AC A0 16",
        ),
    ] {
        assert_eq!(Serial::parse(text).unwrap().as_str(), expect);
    }
}

#[test]
fn hostile_texts_are_refused() {
    let long = ["ŉA".repeat(43), "AB".repeat(5_000_000)];
    let odd = ["A\u{0}B", "A\u{202e}B", "A\u{200b}B", "A\u{e0041}B"];
    for text in odd.into_iter().chain(long.iter().map(String::as_str)) {
        assert_eq!(Serial::parse(text), Err(InvalidSerial::Malformed));
    }
    assert_eq!(Serial::parse(" \t "), Err(InvalidSerial::Empty));
}

#[test]
fn reasons_read_after_is() {
    let ignored = ignoring(&["Loaner*"]);
    let reason = Serial::identify("loaner 7", &ignored).unwrap_err();
    assert_eq!(format!("it is {reason}"), "it is in ignoredSerials");
}

#[test]
fn the_users_list_goes_before_the_form() {
    let ignored = ignoring(&[
        "5CG-0000",
        "vmware-42*",
        "!VMware-42 1a",
        "!System Serial#",
        "!sn 12345",
    ]);
    for (text, expect) in [
        ("5cg0000", Err(InvalidSerial::Ignored)),
        ("5CG00001", Ok(())),
        ("VMware-42 1b 7c", Err(InvalidSerial::Ignored)),
        ("VMware-42", Err(InvalidSerial::Ignored)),
        ("VMware-42 1A", Ok(())),
        ("VMware-43", Ok(())),
        ("system serial", Ok(())),
        ("SN12345", Ok(())),
        ("SN123456", Err(InvalidSerial::Sequence)),
        (" ", Err(InvalidSerial::Empty)),
    ] {
        let judged = Serial::identify(text, &ignored).map(|_| ());
        assert_eq!(judged, expect, "{text:?}");
    }
}

/// Writes a text in other dress: in any case, with spaces and punctuation between its characters and around them.
fn dressed(text: &'static str) -> impl Strategy<Value = String> {
    let chars: Vec<_> = text.chars().collect();
    let dress = prop::collection::vec((any::<bool>(), "[ ._#/()-]{0,1}"), chars.len());
    (dress, "[ .]{0,2}", "[ .]{0,2}").prop_map(move |(dress, before, after)| {
        let mut text = before;
        for (c, (is_upper, separator)) in chars.iter().zip(dress) {
            if is_upper {
                text.extend(c.to_uppercase());
            } else {
                text.extend(c.to_lowercase());
            }
            text += &separator;
        }
        text + &after
    })
}

fn any_filler() -> impl Strategy<Value = (&'static str, InvalidSerial)> {
    select(fillers().collect::<Vec<_>>())
}

/// Generates serials by the rules of their makers.
fn serial_of_a_maker() -> impl Strategy<Value = String> {
    prop_oneof![
        // HP: site, year and week, sequence in base 36 or 10.
        "(5CG|5CD|CND|8CG|MXL|CZC|4CE|2UA|JPA)[0-9]([0-4][0-9]|5[0-2])[0-9B-DF-HJ-NP-TV-Z]{4}",
        // Dell: seven of base 36, without vowels.
        "[1-9B-DF-HJ-NP-TV-Z][0-9B-DF-HJ-NP-TV-Z]{5}[1-4]",
        // Lenovo: plant and sequence.
        "(PF|PC|MP|MJ|R9|LR|PW|YX|S1|L3)[0-9A-HJ-NP-TV-Z]{6}",
        // Apple: 12 until 2021, then 10 to 12 at random.
        "(C02|C17|FVF|FVH|C1M|DY3)[0-9C-HJ-NP-TV-Z]{5}[0-9A-Z]{4}",
        "[C-HJ-NP-TV-Z0-9]{10,12}",
        // Microsoft Surface.
        "0[0-9]{11}",
        "VMware(-[0-9a-f]{2}( [0-9a-f]{2}){7}){2}",
        "Parallels-[0-9A-F]{2}( [0-9A-F]{2}){15}",
        "0000(-[0-9]{4}){5}-[0-9]{2}",
        "GoogleCloud-[0-9A-F]{32}",
        "[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
    ]
}

proptest! {
    #![proptest_config(cases(5_000))]

    /// A serial is short and visible, and parsing its normal form gives the same serial.
    #[test]
    fn the_normal_form_is_normal(text in prop_oneof![text(), "\\PC{2,140}"]) {
        match Serial::parse(&text) {
            Ok(serial) => {
                assert_fit(serial.as_str(), Serial::MAX_CHARS);
                prop_assert_eq!(Serial::parse(serial.as_str()), Ok(serial.clone()));
                prop_assert_eq!(Serial::parse(&text.to_uppercase()), Ok(serial));
            }
            Err(error) => {
                prop_assert!(matches!(error, InvalidSerial::Empty | InvalidSerial::Malformed));
            }
        }
    }

    #[test]
    fn the_judgement_is_of_the_normal_form(text in prop_oneof![text(), "\\PC{0,30}"]) {
        if let Ok(serial) = Serial::parse(&text) {
            let expect = serial.judge(&IgnoredSerials::default()).map(|()| serial.clone());
            prop_assert_eq!(identify(&text), expect.clone());
            prop_assert_eq!(identify(serial.as_str()), expect);
        }
    }

    #[test]
    fn dress_does_not_matter(
        (text, reason, dressed) in any_filler()
            .prop_flat_map(|(text, reason)| (Just(text), Just(reason), dressed(text))),
    ) {
        prop_assert_eq!(identify(&dressed), Err(reason), "{:?} for {:?}", dressed, text);
    }

    #[test]
    fn the_users_list_does_not_mind_dress(
        (text, entry, reported) in select(serials().collect::<Vec<_>>())
            .prop_flat_map(|text| (Just(text), dressed(text), dressed(text))),
    ) {
        let entry = entry.trim();
        let judged = Serial::identify(&reported, &ignoring(&[entry]));
        prop_assert_eq!(judged, Err(InvalidSerial::Ignored), "{}", text);
        let both = ignoring(&[entry, &format!("!{text}")]);
        prop_assert!(Serial::identify(&reported, &both).is_ok());
    }

    #[test]
    fn serials_of_makers_are_no_fillers(text in serial_of_a_maker()) {
        prop_assert!(identify(&text).is_ok(), "{}", text);
    }
}

#[test]
fn folding_any_letter_twice_changes_nothing() {
    for letter in '\u{0}'..=char::MAX {
        if let Ok(serial) = Serial::parse(&format!("{letter}S1")) {
            assert_eq!(Serial::parse(serial.as_str()), Ok(serial));
        }
    }
}
