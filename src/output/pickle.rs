//! Pickles of protocol 2, as far as torch's checkpoints need them.

use foldhash::HashMap;

use crate::tensor::Dtype;

/// Bytes after which a part of a long pickle is closed.
const PART: usize = 1 << 20;

/// A value that is written once and then referred to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Memo<'a> {
    Global(&'static str, &'static str),
    Text(&'a str),
    Object(&'static str),
    Properties(Dtype),
}

/// A pickle that grows.
#[derive(Debug)]
pub struct Pickle<'a> {
    parts: Vec<Vec<u8>>,
    out: Vec<u8>,
    /// `None` where nothing is referred to again.
    memo: Option<HashMap<Memo<'a>, u32>>,
}

impl<'a> Pickle<'a> {
    pub fn new() -> Self {
        Self {
            parts: Vec::new(),
            out: b"\x80\x02".to_vec(),
            memo: Some(HashMap::default()),
        }
    }

    /// A short pickle, in which all is written where it stands.
    pub fn without_memo() -> Self {
        Self {
            memo: None,
            ..Self::new()
        }
    }

    /// Opcodes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self
    }

    /// A class or function.
    pub fn global(&mut self, module: &'static str, name: &'static str) -> &mut Self {
        self.shared(Memo::Global(module, name), |pickle| {
            pickle.plain_global(module, name);
        })
    }

    /// A class or function that is not referred to again.
    fn plain_global(&mut self, module: &str, name: &str) -> &mut Self {
        self.raw(b"c").raw(module.as_bytes()).raw(b"\n");
        self.raw(name.as_bytes()).raw(b"\n")
    }

    /// A text.
    pub fn text(&mut self, text: &'a str) -> &mut Self {
        self.shared(Memo::Text(text), |pickle| {
            pickle.plain_text(text);
        })
    }

    /// A text that is not referred to again.
    pub fn plain_text(&mut self, text: &str) -> &mut Self {
        self.raw(b"X").raw(&(text.len() as u32).to_le_bytes());
        self.raw(text.as_bytes())
    }

    /// An object that `write` makes, the same for all uses of `name`.
    pub fn object(&mut self, name: &'static str, write: impl FnOnce(&mut Self)) -> &mut Self {
        self.shared(Memo::Object(name), write)
    }

    /// The properties of tensors of a type, which `write` makes.
    pub fn properties(&mut self, dtype: Dtype, write: impl FnOnce(&mut Self)) -> &mut Self {
        self.shared(Memo::Properties(dtype), write)
    }

    pub fn number(&mut self, number: u64) -> &mut Self {
        let bytes = number.to_le_bytes();
        match number {
            0..=0xFF => self.raw(&[b'K', bytes[0]]),
            0x100..=0xFFFF => self.raw(b"M").raw(&bytes[..2]),
            0x1_0000..=0x7FFF_FFFF => self.raw(b"J").raw(&bytes[..4]),
            _ => {
                // Two's complement: the highest bit is a sign.
                let length = (64 - number.leading_zeros() as usize) / 8 + 1;
                let signed = u128::from(number).to_le_bytes();
                self.raw(&[0x8A, length as u8]).raw(&signed[..length])
            }
        }
    }

    /// A tuple of numbers.
    pub fn tuple(&mut self, numbers: &[u64]) -> &mut Self {
        let (open, close): (&[u8], &[u8]) = match numbers.len() {
            0 => (b"", b")"),
            1 => (b"", b"\x85"),
            2 => (b"", b"\x86"),
            3 => (b"", b"\x87"),
            _ => (b"(", b"t"),
        };
        self.raw(open);
        for number in numbers {
            self.number(*number);
        }
        self.raw(close)
    }

    /// Marks a place at which a long pickle may be parted.
    pub fn may_part(&mut self) {
        if self.out.len() >= PART {
            let out = std::mem::replace(&mut self.out, Vec::with_capacity(PART + PART / 8));
            self.parts.push(out);
        }
    }

    /// The whole pickle, in parts.
    pub fn finish(mut self) -> Vec<Vec<u8>> {
        self.raw(b".");
        self.parts.push(self.out);
        self.parts
    }

    /// The whole pickle.
    pub fn into_bytes(self) -> Vec<u8> {
        self.finish().concat()
    }

    fn shared(&mut self, key: Memo<'a>, write: impl FnOnce(&mut Self)) -> &mut Self {
        let known = self.memo.as_ref().and_then(|memo| memo.get(&key)).copied();
        if let Some(number) = known {
            return self.memo_code(*b"hj", number);
        }
        write(self);
        let Some(memo) = &mut self.memo else {
            return self;
        };
        let number = memo.len() as u32;
        memo.insert(key, number);
        self.memo_code(*b"qr", number)
    }

    fn memo_code(&mut self, [short, long]: [u8; 2], number: u32) -> &mut Self {
        match u8::try_from(number) {
            Ok(number) => self.raw(&[short, number]),
            Err(_) => self.raw(&[long]).raw(&number.to_le_bytes()),
        }
    }
}

/// The class of typed storages that torch writes for a type. Newer types have storages of bytes.
pub fn storage_class(dtype: Dtype) -> Option<&'static str> {
    match dtype {
        Dtype::F64 => Some("DoubleStorage"),
        Dtype::F32 => Some("FloatStorage"),
        Dtype::F16 => Some("HalfStorage"),
        Dtype::BF16 => Some("BFloat16Storage"),
        Dtype::I64 => Some("LongStorage"),
        Dtype::I32 => Some("IntStorage"),
        Dtype::I16 => Some("ShortStorage"),
        Dtype::I8 => Some("CharStorage"),
        Dtype::U8 => Some("ByteStorage"),
        Dtype::Bool => Some("BoolStorage"),
        Dtype::C64 => Some("ComplexFloatStorage"),
        _ => None,
    }
}

/// Strides of a contiguous tensor as torch counts them: a size of zero counts as one.
pub fn strides(dims: &[u64]) -> Vec<u64> {
    let mut step = 1u64;
    let mut strides: Vec<u64> = dims
        .iter()
        .rev()
        .map(|size| {
            let stride = step;
            step = step.saturating_mul((*size).max(1));
            stride
        })
        .collect();
    strides.reverse();
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_short_as_python_writes_them() {
        let written = |number| {
            let mut pickle = Pickle::new();
            pickle.number(number);
            pickle.into_bytes()[2..].to_vec()
        };
        assert_eq!(written(255), b"K\xff.");
        assert_eq!(written(256), b"M\x00\x01.");
        assert_eq!(written(0x7FFF_FFFF), b"J\xff\xff\xff\x7f.");
        assert_eq!(written(0x8000_0000), b"\x8a\x05\x00\x00\x00\x80\x00.");
        assert_eq!(written(1 << 32), b"\x8a\x05\x00\x00\x00\x00\x01.");
        assert_eq!(
            written(u64::MAX),
            b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00."
        );
    }

    #[test]
    fn what_was_written_is_referred_to() {
        let mut pickle = Pickle::new();
        pickle.text("a").text("a").plain_text("a");
        assert_eq!(
            pickle.into_bytes(),
            b"\x80\x02X\x01\x00\x00\x00aq\x00h\x00X\x01\x00\x00\x00a."
        );
    }
}
