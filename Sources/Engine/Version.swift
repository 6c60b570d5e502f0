/// The version of this build, shown by `--version` and recorded in hellos and manifests.
package let tesseraVersion = "0.1.0"
