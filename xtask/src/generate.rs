//! Files that are made from the Rust types and committed; a test beside each type compares.

use crate::{
    places::Places,
    run::{Error, Result},
};

/// `cargo xtask crd`
pub fn crd() -> Result {
    let file = Places::find()?.root.join("charts/obol-crds/templates/serviceoffer.yaml");
    let written =
        std::fs::create_dir_all(file.parent().unwrap_or(&file)).and_then(|()| std::fs::write(&file, obol_offer::admission::crd_yaml()));
    written.map_err(|error| Error::Check(format!("{}: {error}", file.display())))?;
    println!("{}", file.display());
    Ok(())
}
