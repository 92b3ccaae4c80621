//! Requests of a scraper and their answers: the little of HTTP/1.1 (RFC 9112) that an exporter needs. Pure. Host.

use httparse::{EMPTY_HEADER, Request, Status};

/// Bytes of a request's head, at most.
pub(super) const HEAD: usize = 8 << 10;
/// Its fields, at most.
const FIELDS: usize = 64;

/// `Content-Type` of OpenMetrics.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The metrics, or only what their answer would begin with.
    Metrics {
        /// The body too.
        body: bool,
    },
    /// Something that gets this status.
    Nothing(u16, &'static str),
}

/// Reads a request's head; none while it is not whole.
pub(super) fn parse(bytes: &[u8]) -> Option<Asked> {
    let mut fields = [EMPTY_HEADER; FIELDS];
    let mut request = Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(Status::Partial) if bytes.len() < HEAD => return None,
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Some(Asked::Nothing(431, "Request Header Fields Too Large"));
        }
        Ok(Status::Complete(_)) => {}
        Err(_) => return Some(Asked::Nothing(400, "Bad Request")),
    }
    let path = request.path.unwrap_or_default().split('?').next().unwrap_or_default();
    Some(match (request.method.unwrap_or_default(), path) {
        ("GET", "/metrics") => Asked::Metrics { body: true },
        ("HEAD", "/metrics") => Asked::Metrics { body: false },
        ("GET" | "HEAD", _) => Asked::Nothing(404, "Not Found"),
        _ => Asked::Nothing(405, "Method Not Allowed"),
    })
}

/// An answer; the connection ends behind it.
fn answer(status: u16, reason: &str, kind: &str, body: &str, with_body: bool) -> Vec<u8> {
    let allow = if status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{allow}Connection: close\r\n\r\n",
        body.len()
    );
    [head.as_str(), if with_body { body } else { "" }].concat().into_bytes()
}

/// The metrics.
pub(super) fn metrics(text: &str, body: bool) -> Vec<u8> {
    answer(200, "OK", OPENMETRICS, text, body)
}

/// Anything else.
pub(super) fn failure(status: u16, reason: &str, why: &str) -> Vec<u8> {
    answer(status, reason, PLAIN, &format!("{why}\n"), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart() {
        let table: [(&[u8], Option<Asked>); 9] = [
            (b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", Some(Asked::Metrics { body: true })),
            (b"GET /metrics?a=b HTTP/1.0\r\n\r\n", Some(Asked::Metrics { body: true })),
            (b"HEAD /metrics HTTP/1.1\r\n\r\n", Some(Asked::Metrics { body: false })),
            (b"GET /metrics HTTP/1.1\r\nHost: a\r\n", None),
            (b"", None),
            (b"GET /etc/passwd HTTP/1.1\r\n\r\n", Some(Asked::Nothing(404, "Not Found"))),
            (b"POST /metrics HTTP/1.1\r\n\r\n", Some(Asked::Nothing(405, "Method Not Allowed"))),
            (b"\x16\x03\x01\x02\x00\x01", Some(Asked::Nothing(400, "Bad Request"))),
            (&[b'A'; HEAD], Some(Asked::Nothing(431, "Request Header Fields Too Large"))),
        ];
        for (bytes, asked) in table {
            assert_eq!(parse(bytes), asked, "{}", String::from_utf8_lossy(bytes));
        }
        let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(FIELDS + 1));
        assert!(matches!(parse(many.as_bytes()), Some(Asked::Nothing(431, _))));
    }

    #[test]
    fn an_answer_says_how_long_it_is() {
        let whole = String::from_utf8(metrics("# EOF\n", true)).unwrap();
        assert!(whole.starts_with("HTTP/1.1 200 OK\r\n") && whole.contains("Content-Length: 6\r\n"));
        assert!(whole.ends_with("\r\n\r\n# EOF\n"));
        let head = String::from_utf8(metrics("# EOF\n", false)).unwrap();
        assert!(head.contains("Content-Length: 6\r\n") && head.ends_with("\r\n\r\n"));
        assert!(String::from_utf8(failure(405, "Method Not Allowed", "no")).unwrap().contains("Allow: GET, HEAD\r\n"));
    }
}
