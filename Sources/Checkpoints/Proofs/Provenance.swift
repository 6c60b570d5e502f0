package import Core

/// `tessera.provenance.json`: where an output comes from, as an in-toto statement with the predicate of SLSA Provenance v1
/// (slsa.dev/spec/v1.0/provenance).
///
/// The same recipe over the same inputs gives the same bytes: no time, host or job is in it. SLSA's metadata, which would hold
/// them, is optional.
package enum Provenance {
    package static let fileName = "tessera.provenance.json"
    private static let predicateType = "https://slsa.dev/provenance/v1"
    /// What says how to read the parameters: the page of that name in Tessera's source.
    private static let buildType = "pkg:generic/tessera#docs/provenance.md"

    private struct Predicate: Encodable {
        let buildDefinition: BuildDefinition
        let runDetails: RunDetails
    }

    private struct BuildDefinition: Encodable {
        let buildType = Provenance.buildType
        let externalParameters: ExternalParameters
        let internalParameters: InternalParameters
        let resolvedDependencies: [Artifact]
    }

    /// What the submitter chose and the output's bytes depend on.
    private struct ExternalParameters: Encodable {
        let recipe: Artifact
        let maxPartBytes: Int
        /// A string, since 64 bits are more than a JSON number holds for every reader.
        let seed: String
    }

    private struct InternalParameters: Encodable {
        let numericsVersion: Int
        let plan: Digest
    }

    private struct RunDetails: Encodable {
        struct Builder: Encodable {
            let id: String
            let version: [String: String]
        }

        let builder: Builder
    }

    /// - Parameters:
    ///   - manifest: of the output.
    ///   - files: every file of the output that is the same in each run, with its digest.
    ///   - inputs: every input file, by the reference in the recipe and its name, with its digest.
    /// - Throws: `internal` if the statement cannot be written.
    package static func statement(
        of manifest: Manifest, files: [FileDigest], inputs: [FileDigest], maxPartBytes: Int, seed: UInt64
    ) throws(TesseraError) -> [UInt8] {
        func artifacts(_ files: [FileDigest]) -> [Artifact] {
            files.sorted { $0.name.precedesInBytes($1.name) }.map { Artifact($0.name, $0.digest) }
        }
        let predicate = Predicate(
            buildDefinition: BuildDefinition(
                externalParameters: ExternalParameters(
                    recipe: Artifact("recipe.yml", manifest.recipe), maxPartBytes: maxPartBytes, seed: "\(seed)"),
                internalParameters: InternalParameters(numericsVersion: manifest.numericsVersion, plan: manifest.plan),
                resolvedDependencies: artifacts(inputs)),
            runDetails: RunDetails(
                builder: .init(id: "pkg:generic/tessera@\(manifest.tessera)", version: ["tessera": manifest.tessera])))
        return try stableJSON(Statement(of: artifacts(files), predicateType, predicate))
    }
}
