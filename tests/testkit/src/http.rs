//! HTTP GET over a loopback socket, and the text format of metrics.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Longest wait for a connection, and for each piece of an answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Fetches `path` and returns status and body.
pub fn get(server: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&server, LIMIT)
        .with_context(|| format!("no HTTP server at {server}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the answer has no end of header")?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .context("the answer has no status")?;
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    let body = if chunked {
        unchunk(body)
    } else {
        body.to_owned()
    };
    Ok((status, body))
}

/// Sum of all samples called `name` whose labels contain every one of `labels`
/// (`("direction", "rx")`). `None` when there is no such sample.
#[must_use]
pub fn metric(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let mut sum = None;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let (found, found_labels) = series.split_once('{').unwrap_or((series, ""));
        let wanted = found == name
            && labels
                .iter()
                .all(|(key, value)| found_labels.contains(&format!("{key}=\"{value}\"")));
        if wanted && let Ok(value) = value.parse::<f64>() {
            *sum.get_or_insert(0.0) += value;
        }
    }
    sum
}

fn unchunk(body: &str) -> String {
    let mut whole = String::new();
    let mut rest = body;
    while let Some((len, after)) = rest.split_once("\r\n") {
        let Ok(len) = usize::from_str_radix(len.trim(), 16) else {
            break;
        };
        let (Some(chunk), Some(next)) = (after.get(..len), after.get(len + 2..)) else {
            break;
        };
        whole.push_str(chunk);
        rest = next;
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP x y\nx_total{worker=\"0\",direction=\"rx\"} 5\nx_total{worker=\"1\",direction=\"rx\"} 7\nx_total{worker=\"0\",direction=\"tx\"} 1\ny 3\n";

    #[test]
    fn samples_are_summed_over_the_labels_not_named() {
        assert_eq!(metric(TEXT, "x_total", &[("direction", "rx")]), Some(12.0));
        assert_eq!(metric(TEXT, "x_total", &[]), Some(13.0));
        assert_eq!(metric(TEXT, "y", &[]), Some(3.0));
        assert_eq!(metric(TEXT, "z", &[]), None);
    }

    #[test]
    fn chunks_are_joined() {
        assert_eq!(unchunk("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), "abcde");
    }
}
