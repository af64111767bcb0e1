//! Numbers of bytes, as people write and read them.

const DECIMAL: [&str; 4] = ["KB", "MB", "GB", "TB"];
const BINARY: [&str; 4] = ["KIB", "MIB", "GIB", "TIB"];

/// Least size without a unit that counts as bytes: who writes `5` means gigabytes.
const LEAST_BARE: u64 = 1000;

/// `5GB` is 5 * 10^9 bytes, as for huggingface_hub; `5GiB` is 5 * 2^30; a number alone counts bytes.
pub fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.len()
        - text
            .trim_start_matches(|char: char| char.is_ascii_digit() || char == '.')
            .len();
    let (number, unit) = text.split_at(digits);
    let bytes = unit_bytes(&unit.trim().to_uppercase()).and_then(|unit| product(number, unit));
    match bytes.filter(|bytes| *bytes > 0) {
        Some(bytes) if unit.trim().is_empty() && bytes < LEAST_BARE => Err(format!(
            "that is {bytes} bytes; name a unit, as in {bytes}GB"
        )),
        Some(bytes) => Ok(bytes),
        None => Err("write it like 5GB, 500MB, 5GiB or 5000000000".to_owned()),
    }
}

fn unit_bytes(unit: &str) -> Option<u64> {
    let power = |units: [&str; 4], base: u64| {
        let index = units.iter().position(|name| *name == unit)?;
        Some(base.pow(index as u32 + 1))
    };
    match unit {
        "" | "B" => Some(1),
        _ => power(DECIMAL, 1000).or_else(|| power(BINARY, 1024)),
    }
}

fn product(number: &str, unit: u64) -> Option<u64> {
    match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(unit),
        Err(_) => {
            let bytes = number.parse::<f64>().ok()? * unit as f64;
            (bytes < (1u64 << 53) as f64).then_some(bytes as u64)
        }
    }
}

/// Bytes in the largest unit of 1000 that leaves a whole part.
pub fn shown(bytes: u64) -> String {
    let unit = (0..DECIMAL.len()).rfind(|index| bytes >= 1000_u64.pow(*index as u32 + 1));
    match unit {
        None => format!("{bytes} bytes"),
        Some(index) => {
            let value = bytes as f64 / 1000_f64.powi(index as i32 + 1);
            format!("{value:.1} {}", DECIMAL[index])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_huggingface_hub() {
        assert_eq!(parse("5GB"), Ok(5_000_000_000));
        assert_eq!(parse("5gb"), Ok(5_000_000_000));
        assert_eq!(parse("5GiB"), Ok(5 << 30));
        assert_eq!(parse(" 1.5 MB "), Ok(1_500_000));
        assert_eq!(parse("200KB"), Ok(200_000));
        assert_eq!(parse("12345"), Ok(12_345));
        assert_eq!(parse("2TB"), Ok(2_000_000_000_000));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "GB",
            "5XB",
            "-5GB",
            "0",
            "0GB",
            "1.2.3GB",
            "99999999999TB",
            "1e5",
            "nan",
            "5 GB x",
            "5",
            "999",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_as_people_read_them() {
        assert_eq!(shown(999), "999 bytes");
        assert_eq!(shown(1000), "1.0 KB");
        assert_eq!(shown(16_060_000_000), "16.1 GB");
    }
}
