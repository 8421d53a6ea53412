//! The hardware address of an interface.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The hardware address of an interface, as people write it: `02:42:ac:11:00:02`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress([u8; 6]);

/// A text that is no hardware address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0} is not a valid mac address")]
pub struct MacError(String);

impl MacAddress {
    /// One that no manufacturer has given away, of these bytes.
    pub(super) const fn local([a, b, c, d, e]: [u8; 5]) -> Self {
        Self([2, a, b, c, d, e])
    }

    /// As it is sent.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for MacAddress {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || MacError(text.to_owned());
        let is_octet = |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        let octet =
            |part: &str| Some(part).filter(is_octet).and_then(|part| u8::from_str_radix(part, 16).ok());
        let octets: Option<Vec<u8>> = text.split([':', '-']).map(octet).collect();
        octets.and_then(|octets| octets.try_into().ok()).map(Self).ok_or_else(malformed)
    }
}

impl TryFrom<String> for MacAddress {
    type Error = MacError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(address: MacAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for text in ["02:42:ac:11:00:02", "02-42-AC-11-00-02"] {
            assert_eq!(text.parse::<MacAddress>().unwrap().to_string(), "02:42:ac:11:00:02");
        }
        for text in [
            "",
            "02:42:ac:11:00",
            "02:42:ac:11:00:02:03",
            "2:42:ac:11:00:02",
            "zz:42:ac:11:00:02",
            "+2:42:ac:11:00:02",
        ] {
            assert!(text.parse::<MacAddress>().is_err(), "{text}");
        }
    }
}
