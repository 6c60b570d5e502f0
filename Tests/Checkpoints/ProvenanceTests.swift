import Checkpoints
import Core
import Testing

@Suite struct ProvenanceTests {
    /// Byte for byte: whoever builds again compares these files.
    @Test func theStatementOfAnOutput() throws {
        let digest = try Digest.sha256(of: [1])
        let manifest = Manifest(
            tessera: "1.2.3", numericsVersion: 4, recipe: digest, plan: .none, inputs: [], parts: [], files: [])
        let files = ["model.safetensors", "config.json"].map { FileDigest(name: $0, digest: digest) }
        let statement = try Provenance.statement(
            of: manifest, files: files, inputs: [FileDigest(name: "base/model.safetensors", digest: .none)],
            maxPartBytes: 5_000_000_000, seed: .max)
        let one = digest.hex, none = Digest.none.hex
        #expect(
            String(decoding: statement, as: UTF8.self) == """
                {
                  "_type" : "https://in-toto.io/Statement/v1",
                  "predicate" : {
                    "buildDefinition" : {
                      "buildType" : "pkg:generic/tessera#docs/provenance.md",
                      "externalParameters" : {
                        "maxPartBytes" : 5000000000,
                        "recipe" : {
                          "digest" : {
                            "sha256" : "\(one)"
                          },
                          "name" : "recipe.yml"
                        },
                        "seed" : "18446744073709551615"
                      },
                      "internalParameters" : {
                        "numericsVersion" : 4,
                        "plan" : "\(none)"
                      },
                      "resolvedDependencies" : [
                        {
                          "digest" : {
                            "sha256" : "\(none)"
                          },
                          "name" : "base/model.safetensors"
                        }
                      ]
                    },
                    "runDetails" : {
                      "builder" : {
                        "id" : "pkg:generic/tessera@1.2.3",
                        "version" : {
                          "tessera" : "1.2.3"
                        }
                      }
                    }
                  },
                  "predicateType" : "https://slsa.dev/provenance/v1",
                  "subject" : [
                    {
                      "digest" : {
                        "sha256" : "\(one)"
                      },
                      "name" : "config.json"
                    },
                    {
                      "digest" : {
                        "sha256" : "\(one)"
                      },
                      "name" : "model.safetensors"
                    }
                  ]
                }

                """)
    }
}
