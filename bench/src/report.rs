//! A measurement and what is needed to judge it: machine, commit, method.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;

/// One measurement, as it goes to `bench/results/<name>.json` and `.md`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// File name without ending.
    pub name: &'static str,
    /// What was measured, in a line.
    pub title: String,
    /// How, so that another can do it again.
    pub method: Vec<String>,
    /// On what.
    pub machine: Machine,
    /// Of what; `+` when the checkout had changes.
    pub commit: String,
    /// How this program was built, and the daemons beside it.
    pub profile: &'static str,
    /// When, UTC.
    pub date: String,
    /// Column names.
    pub columns: Vec<&'static str>,
    /// One value per column.
    pub rows: Vec<Vec<Value>>,
    /// Tables below the first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub further: Vec<Table>,
    /// What the rows come to.
    pub findings: Vec<String>,
    /// What a reader of the JSON compares, by name: one figure over another.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ratios: BTreeMap<String, f64>,
    /// Everything that was seen, for who looks closer; in the JSON only.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub details: Value,
}

/// Some more rows, of other columns.
#[derive(Debug, Serialize)]
pub struct Table {
    /// What the rows tell, in a line.
    pub title: String,
    /// Column names.
    pub columns: Vec<&'static str>,
    /// One value per column.
    pub rows: Vec<Vec<Value>>,
}

impl Table {
    /// One without rows.
    #[must_use]
    pub fn new(title: &str, columns: &[&'static str]) -> Self {
        Self {
            title: title.to_owned(),
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }
}

/// The machine, as far as it matters.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// From /proc/cpuinfo.
    pub cpu: String,
    /// Cores this process may use.
    pub cores: usize,
    /// `uname -r`.
    pub kernel: String,
    /// Whether the kernel says it runs under a hypervisor: figures are then relative at best.
    pub is_virtual: bool,
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn this() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            info.lines()
                .find(|line| line.starts_with(name))
                .and_then(|line| line.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
                .unwrap_or_else(|| "unknown".to_owned())
        };
        Self {
            cpu: field("model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: output_of("uname", &["-r"]).unwrap_or_else(|| "unknown".to_owned()),
            is_virtual: field("flags").split(' ').any(|flag| flag == "hypervisor"),
        }
    }
}

impl Report {
    /// An empty report of this machine and checkout.
    #[must_use]
    pub fn new(name: &'static str, title: &str, columns: &[&'static str]) -> Self {
        Self {
            name,
            title: title.to_owned(),
            method: Vec::new(),
            machine: Machine::this(),
            commit: commit(),
            profile: if cfg!(debug_assertions) {
                "dev build: not a measurement"
            } else {
                "release build"
            },
            date: output_of("date", &["-u", "+%Y-%m-%d %H:%M"]).unwrap_or_default(),
            columns: columns.to_vec(),
            rows: Vec::new(),
            further: Vec::new(),
            findings: Vec::new(),
            ratios: BTreeMap::new(),
            details: Value::Null,
        }
    }

    /// Writes both files and prints the table.
    pub fn publish(&self) -> Result<()> {
        let directory = results_directory();
        fs::create_dir_all(&directory)?;
        let json = directory.join(format!("{}.json", self.name));
        let page = directory.join(format!("{}.md", self.name));
        fs::write(&json, serde_json::to_string_pretty(self)? + "\n")
            .with_context(|| format!("cannot write {}", json.display()))?;
        let text = self.to_markdown();
        fs::write(&page, &text).with_context(|| format!("cannot write {}", page.display()))?;
        print!("{text}");
        println!("\nwritten to {} and {}", json.display(), page.display());
        Ok(())
    }

    /// The report as a page.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut page = format!("# {}\n\n", self.title);
        let _ = writeln!(
            page,
            "{} · commit {} · {} · {}, {} cores, kernel {}{}\n",
            self.date,
            self.commit,
            self.profile,
            self.machine.cpu,
            self.machine.cores,
            self.machine.kernel,
            if self.machine.is_virtual {
                ", virtual machine (absolute figures are noisy)"
            } else {
                ""
            }
        );
        write_table(&mut page, &self.columns, &self.rows);
        for table in &self.further {
            let _ = writeln!(page, "## {}\n", table.title);
            write_table(&mut page, &table.columns, &table.rows);
        }
        for (name, ratio) in &self.ratios {
            let _ = writeln!(page, "- {name}: {ratio:.2}");
        }
        for finding in &self.findings {
            let _ = writeln!(page, "- {finding}");
        }
        page.push_str("\nMethod:\n\n");
        for line in &self.method {
            let _ = writeln!(page, "- {line}");
        }
        page
    }
}

fn write_table(page: &mut String, columns: &[&str], rows: &[Vec<Value>]) {
    let _ = writeln!(page, "| {} |", columns.join(" | "));
    let _ = writeln!(page, "|{}", "---|".repeat(columns.len()));
    for row in rows {
        let cells: Vec<String> = row.iter().map(cell).collect();
        let _ = writeln!(page, "| {} |", cells.join(" | "));
    }
    page.push('\n');
}

/// Figures with as many digits as they deserve.
fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(figure) if number.is_f64() && figure.abs() >= 100.0 => format!("{figure:.0}"),
            Some(figure) if number.is_f64() && figure.abs() >= 1.0 => format!("{figure:.2}"),
            Some(figure) if number.is_f64() => format!("{figure:.4}"),
            _ => number.to_string(),
        },
        Value::Null => "–".to_owned(),
        other => other.to_string(),
    }
}

/// `bench/results` of this checkout.
fn results_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("results")
}

fn commit() -> String {
    let root = env!("CARGO_MANIFEST_DIR");
    let head = output_of("git", &["-C", root, "rev-parse", "--short", "HEAD"]);
    let changes = output_of("git", &["-C", root, "status", "--porcelain", "-uno"]);
    match (head, changes) {
        (Some(head), Some(changes)) if changes.is_empty() => head,
        (Some(head), _) => format!("{head}+"),
        (None, _) => "unknown".to_owned(),
    }
}

fn output_of(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
