//! The platform of a machine, in one word for both sides.

/// A platform that both sides name. Falcon writes `Windows`, `Mac` and `Linux`, Tailscale `windows`, `macOS` and `linux`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Platform {
    /// Windows.
    Windows,
    /// macOS.
    MacOs,
    /// Linux.
    Linux,
    /// Anything else, or nothing: no statement about the platform.
    #[default]
    Other,
}

impl Platform {
    /// Reads the word of either side, in any case.
    pub fn parse(text: &str) -> Self {
        let is = |word: &str| text.trim().eq_ignore_ascii_case(word);
        if is("windows") {
            Self::Windows
        } else if is("mac") || is("macos") {
            Self::MacOs
        } else if is("linux") {
            Self::Linux
        } else {
            Self::Other
        }
    }

    /// Returns whether a machine of this platform can be one of the other.
    pub fn may_be(self, other: Self) -> bool {
        self == other || self == Self::Other || other == Self::Other
    }
}

#[cfg(test)]
mod tests {
    use super::Platform::{self, Linux, MacOs, Other, Windows};

    #[test]
    fn both_sides_words_are_known_and_others_say_nothing() {
        for (text, expected) in [
            ("Windows", Windows),
            ("windows", Windows),
            ("Mac", MacOs),
            ("macOS", MacOs),
            (" linux ", Linux),
            ("iOS", Other),
            ("ChromeOS", Other),
            ("", Other),
        ] {
            assert_eq!(Platform::parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn only_two_known_platforms_exclude_each_other() {
        let all = [Windows, MacOs, Linux, Other];
        for one in all {
            for other in all {
                let excludes = one != other && one != Other && other != Other;
                assert_eq!(one.may_be(other), !excludes);
                assert_eq!(one.may_be(other), other.may_be(one));
            }
        }
    }
}
