//! The bytes of a resource as the control plane sent them. `/config_dump` shows them, the last good configuration is made
//! of them, and what is sent again is known by them. All that is seldom, and they add up to as much as what they mean: so
//! they are packed as soon as nothing happens.

use envoy_types::pb::google::protobuf::Any;
use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

/// Longest bytes that others are packed with: as far back as the format refers to.
const LONGEST_MODEL: usize = 64 << 10;

/// The bytes of one resource.
pub struct Raw {
    type_url: &'static str,
    bytes: RefCell<Bytes>,
}

enum Bytes {
    /// As they came.
    Plain(Box<[u8]>),
    /// By reference to themselves, and to others that may be like them.
    Packed { content: Box<[u8]>, length: u32, model: Option<Rc<[u8]>> },
}

impl Bytes {
    fn unpacked(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Plain(bytes) => bytes.as_ref().into(),
            Self::Packed { content, length, model } => {
                let model = model.as_deref().unwrap_or_default();
                // Packed by ourselves, in this process: it can be unpacked.
                lz4_flex::block::decompress_with_dict(content, *length as usize, model)
                    .unwrap_or_default()
                    .into()
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.len(),
            Self::Packed { length, .. } => *length as usize,
        }
    }
}

impl Raw {
    /// What came in a resource of this type.
    pub fn new(type_url: &'static str, bytes: &[u8]) -> Rc<Self> {
        Rc::new(Self { type_url, bytes: RefCell::new(Bytes::Plain(bytes.into())) })
    }

    /// Looks at the bytes.
    pub fn look<R>(&self, look: impl FnOnce(&[u8]) -> R) -> R {
        look(&self.bytes.borrow().unpacked())
    }

    /// The same with their type.
    pub fn to_any(&self) -> Any {
        Any { type_url: self.type_url.to_owned(), value: self.bytes.borrow().unpacked().into_owned() }
    }

    /// Takes less room from now on. `model` is what resources of its kind are like; the first becomes it.
    pub(super) fn pack(&self, model: &mut Option<Rc<[u8]>>) {
        let mut bytes = self.bytes.borrow_mut();
        let Bytes::Plain(plain) = &*bytes else { return };
        let Ok(length) = u32::try_from(plain.len()) else { return };
        let like = model.clone();
        if model.is_none() && plain.len() <= LONGEST_MODEL {
            *model = Some(Rc::from(&**plain));
        }
        let content = lz4_flex::block::compress_with_dict(plain, like.as_deref().unwrap_or_default());
        if content.len() < plain.len() {
            *bytes = Bytes::Packed { content: content.into(), length, model: like };
        }
    }
}

impl PartialEq for Raw {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
            || (self.type_url == other.type_url
                && self.bytes.borrow().len() == other.bytes.borrow().len()
                && self.bytes.borrow().unpacked() == other.bytes.borrow().unpacked())
    }
}

impl std::fmt::Debug for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes of {}", self.bytes.borrow().len(), self.type_url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_bytes_are_smaller_and_still_the_same() {
        let text = |n: u32| format!("{}{n}", "outbound|80||shop.default.svc.cluster.local ".repeat(9));
        let mut model = None;
        for n in 0..5 {
            let (packed, plain) = (Raw::new("t", text(n).as_bytes()), Raw::new("t", text(n).as_bytes()));
            packed.pack(&mut model);
            assert!(matches!(&*packed.bytes.borrow(), Bytes::Packed { content, .. } if content.len() < 100));
            assert_eq!(packed, plain);
            assert_ne!(packed, Raw::new("t", text(n + 1).as_bytes()));
            assert_eq!(packed.to_any().value, text(n).into_bytes());
        }
    }

    #[test]
    fn bytes_that_cannot_be_packed_stay_as_they_are() {
        for plain in [&b""[..], b"x", b"0123456789abcdef"] {
            let raw = Raw::new("t", plain);
            raw.pack(&mut None);
            assert!(raw.look(|bytes| bytes == plain));
        }
    }
}
