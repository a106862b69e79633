//! When a certificate expires. It is told to the watchers, and decides nothing.

use crate::clock::Timestamp;

/// The end of the validity of a certificate in DER (RFC 5280), if it can be found.
pub(super) fn of(certificate: &[u8]) -> Option<Timestamp> {
    let (SEQUENCE, certificate, _) = element(certificate)? else { return None };
    let (SEQUENCE, mut to_be_signed, _) = element(certificate)? else { return None };
    // The version, where it is not the first one; the number; the algorithm; the issuer.
    if let (VERSION, _, rest) = element(to_be_signed)? {
        to_be_signed = rest;
    }
    for _ in 0..3 {
        (_, _, to_be_signed) = element(to_be_signed)?;
    }
    let (SEQUENCE, validity, _) = element(to_be_signed)? else { return None };
    let (_, _, validity) = element(validity)?;
    let (kind, end, _) = element(validity)?;
    let end = std::str::from_utf8(end).ok()?;
    match kind {
        // Two digits of a year between 1950 and 2049.
        UTC_TIME if end < "5" => moment(&format!("20{end}")),
        UTC_TIME => moment(&format!("19{end}")),
        GENERALIZED_TIME => moment(end),
        _ => None,
    }
}

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The first element: its kind, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[kind, length], mut rest) = der.split_first_chunk()?;
    let mut size = usize::from(length);
    if length >= 0x80 {
        let (digits, content) = rest.split_at_checked(usize::from(length & 0x7f))?;
        if digits.len() > 4 {
            return None;
        }
        size = digits.iter().fold(0, |size, digit| size << 8 | usize::from(*digit));
        rest = content;
    }
    let (content, rest) = rest.split_at_checked(size)?;
    Some((kind, content, rest))
}

/// `20300102030405Z`
fn moment(digits: &str) -> Option<Timestamp> {
    let part = |from: usize, to: usize| digits.get(from..to);
    if digits.len() != 15 || part(14, 15) != Some("Z") {
        return None;
    }
    let date = [part(0, 4)?, part(4, 6)?, part(6, 8)?].join("-");
    let time = [part(8, 10)?, part(10, 12)?, part(12, 14)?].join(":");
    format!("{date}T{time}Z").parse().ok()
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::pki_types::CertificateDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject;

    use super::*;

    /// As `openssl x509 -noout -enddate` has it.
    #[test]
    fn the_end_of_a_certificate_is_found() {
        let pem = std::fs::read("tests/fixtures/tls/first.pem").unwrap();
        let der = CertificateDer::from_pem_slice(&pem).unwrap();
        assert_eq!(of(&der), "2126-11-04T02:25:59Z".parse().ok());
        // Whatever is cut off or damaged, nothing panics.
        for at in 0..der.len() {
            of(&der[..at]);
            for bit in 0..8 {
                let mut damaged = der.to_vec();
                damaged[at] ^= 1 << bit;
                of(&damaged);
            }
        }
    }

    #[test]
    fn both_forms_of_a_year_are_read() {
        let time = |kind: u8, text: &str| {
            let wrap = |kind: u8, content: Vec<u8>| {
                let mut der = vec![kind, u8::try_from(content.len()).unwrap()];
                der.extend(content);
                der
            };
            let validity = [wrap(UTC_TIME, b"200101000000Z".into()), wrap(kind, text.into())];
            let before = [VERSION, 0x02, SEQUENCE, SEQUENCE].map(|kind| wrap(kind, Vec::new()));
            let tbs = [before.concat(), wrap(SEQUENCE, validity.concat())].concat();
            of(&wrap(SEQUENCE, wrap(SEQUENCE, tbs)))
        };
        assert_eq!(time(UTC_TIME, "300102030405Z"), "2030-01-02T03:04:05Z".parse().ok());
        assert_eq!(time(UTC_TIME, "990102030405Z"), "1999-01-02T03:04:05Z".parse().ok());
        assert_eq!(time(GENERALIZED_TIME, "20500102030405Z"), "2050-01-02T03:04:05Z".parse().ok());
        for wrong in
            ["", "Z", "20500102030405", "2050010203040Z", "20501302030405Z", "é050102030405Z"]
        {
            assert_eq!(time(GENERALIZED_TIME, wrong), None, "{wrong}");
        }
    }
}
