//! Texts that real machines report in the place of a serial number, each list with its public source.

use crate::domain::inventory::serial::InvalidSerial;

/// Texts with the reason why each is no serial.
pub(super) type Judged = (InvalidSerial, &'static [&'static str]);

/// Fillers by the public source that lists them.
pub(super) const FILLERS: [(&str, &[Judged]); 13] = [
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
pub(super) const SERIALS: [(&str, &[&str]); 22] = [
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
