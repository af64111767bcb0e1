//! VeOmni's `model_assets`, which hold config and tokenizer beside `checkpoints/global_step_N` (VeOmni 0.1,
//! veomni/utils/arguments.py and helper.py).

use crate::checkpoint::folder::Folder;

const SAVES: &str = "checkpoints";
const ASSETS: &str = "model_assets";

/// Returns the folder of config and tokenizer of the run that `save` belongs to, if it has one.
pub fn of(save: &Folder) -> Option<Folder> {
    let saves = save
        .path()
        .parent()
        .filter(|saves| saves.ends_with(SAVES))?;
    let assets = Folder::open(&saves.parent()?.join(ASSETS)).ok()?;
    Some(assets.within(save.budget()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn assets_lie_beside_the_folder_of_saves() {
        let root = tempfile::tempdir().unwrap();
        for save in ["checkpoints/global_step_2", "others/global_step_2"] {
            fs::create_dir_all(root.path().join(save)).unwrap();
        }
        let found = |save: &str| of(&Folder::open(&root.path().join(save)).unwrap()).is_some();
        assert!(!found("checkpoints/global_step_2"));
        fs::create_dir(root.path().join(ASSETS)).unwrap();
        assert!(found("checkpoints/global_step_2"));
        assert!(!found("others/global_step_2"));
    }
}
