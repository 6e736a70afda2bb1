use std::collections::VecDeque;

use bytes::Bytes;

use super::HpackError;

/// A header field. Name and value may be any bytes: who reads the headers judges them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Field {
    pub(in super::super) name: Bytes,
    pub(in super::super) value: Bytes,
}

impl Field {
    /// As the RFC counts.
    pub(super) fn size(&self) -> usize {
        self.name.len() + self.value.len() + 32
    }
}

/// Bytes that a table may hold unless another number is agreed on. Nothing here ever tells a peer another number.
const DEFAULT_SIZE: usize = 4096;

/// The fields that blocks refer to by number: those that are always there, then the newest first.
#[derive(Debug)]
pub(super) struct Table {
    newest_first: VecDeque<Field>,
    size: usize,
    most: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self { newest_first: VecDeque::new(), size: 0, most: DEFAULT_SIZE }
    }
}

impl Table {
    pub(super) fn get(&self, index: usize) -> Result<Field, HpackError> {
        let missing = HpackError("a number that stands for no field");
        let index = index.checked_sub(1).ok_or(missing)?;
        if let Some((name, value)) = STATIC.get(index) {
            return Ok(Field {
                name: Bytes::from_static(name.as_bytes()),
                value: Bytes::from_static(value.as_bytes()),
            });
        }
        self.newest_first.get(index - STATIC.len()).cloned().ok_or(missing)
    }

    pub(super) fn insert(&mut self, field: Field) {
        self.size += field.size();
        self.newest_first.push_front(field);
        self.shrink();
    }

    pub(super) fn resize(&mut self, most: usize) -> Result<(), HpackError> {
        if most > DEFAULT_SIZE {
            return Err(HpackError("a larger table than was agreed"));
        }
        self.most = most;
        self.shrink();
        Ok(())
    }

    /// A field that is larger than the table empties it, and is not in it either.
    fn shrink(&mut self) {
        while self.size > self.most {
            let Some(oldest) = self.newest_first.pop_back() else { return };
            self.size -= oldest.size();
        }
    }
}

/// RFC 7541, appendix A.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];
