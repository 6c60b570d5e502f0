/// The version of this build, as `--version`, hello and manifest name it.
let tesseraVersion = "0.1.0"
