/// The version of this build, as `--version`, hello and manifest name it.
package let tesseraVersion = "0.1.0"
