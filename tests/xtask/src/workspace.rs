//! Where things lie, and cargo itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::packages;

/// The checkout this program was built from.
pub(crate) fn root() -> PathBuf {
    // tests/xtask lies two levels below the root.
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// The target directory this program was built into.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    program
        .ancestors()
        .nth(2)
        .map(Path::to_owned)
        .context("xtask does not lie in target/<profile>")
}

/// The cargo that runs this program, in the root of the checkout.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Builds both daemons in the dev profile.
pub(crate) fn build_daemons() -> Result<()> {
    require_c_compiler()?;
    let mut build = cargo();
    build.args(["build", "-p", "trunkline-edge", "-p", "trunkline-control"]);
    if let Err(error) = packages::ensure(&packages::LIBOPUS) {
        println!("{error:#}\nbuilding without Opus: such audio is relayed, but not converted");
        build.arg("--no-default-features");
    }
    let status = build.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("the daemons do not build; see the messages above");
    }
    Ok(())
}

/// The embedded store and the allocator are C code.
fn require_c_compiler() -> Result<()> {
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    if Command::new(&compiler).arg("--version").output().is_err() {
        bail!(
            "no C compiler: {} does not start. Debian and Ubuntu: apt-get install gcc libc6-dev",
            compiler.display()
        );
    }
    Ok(())
}
