// swift-tools-version: 6.2
import PackageDescription

/// libFuzzer's library, for which Tests/Fuzzing/run builds; `nil` in every other build.
let fuzzer = Context.environment["TESSERA_FUZZER"]

/// Every Swift target of ours is built this way: Swift 6 language mode, explicit imports, warnings are errors.
let strict: [SwiftSetting] =
    [
        .enableUpcomingFeature("ExistentialAny"),
        .enableUpcomingFeature("InternalImportsByDefault"),
        .enableUpcomingFeature("MemberImportVisibility"),
        .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
        .treatAllWarnings(as: .error),
        .treatWarning("DeprecatedDeclaration", as: .warning),
    ] + (fuzzer == nil ? [] : [.unsafeFlags(["-sanitize=fuzzer"])])

/// A module of the house. `uses` may only name modules that stand above it (Tests/House checks the imports themselves).
func module(_ name: String, uses: [Target.Dependency], resources: [Resource] = []) -> Target {
    .target(name: name, dependencies: uses, resources: resources, swiftSettings: strict)
}

/// The tests of one module live in the folder of the same name under `Tests/`.
func tests(of name: String, uses: [Target.Dependency], exclude: [String] = []) -> Target {
    .testTarget(
        name: "\(name)Tests", dependencies: uses, path: "Tests/\(name)", exclude: exclude, swiftSettings: strict)
}

let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let nioEmbedded = Target.Dependency.product(name: "NIOEmbedded", package: "swift-nio")
let nioHTTP1 = Target.Dependency.product(name: "NIOHTTP1", package: "swift-nio")
let nioSSL = Target.Dependency.product(name: "NIOSSL", package: "swift-nio-ssl")
let nioTLS = Target.Dependency.product(name: "NIOTLS", package: "swift-nio")
let nioPosix = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")
let heaps = Target.Dependency.product(name: "HeapModule", package: "swift-collections")
let lifecycle = Target.Dependency.product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
let lifecycleTestKit = Target.Dependency.product(name: "ServiceLifecycleTestKit", package: "swift-service-lifecycle")
let unixSignals = Target.Dependency.product(name: "UnixSignals", package: "swift-service-lifecycle")
let hummingbird = Target.Dependency.product(name: "Hummingbird", package: "hummingbird")
let hummingbirdCore = Target.Dependency.product(name: "HummingbirdCore", package: "hummingbird")
let httpTypes = Target.Dependency.product(name: "HTTPTypes", package: "swift-http-types")
let argumentParser = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let grdb = Target.Dependency.product(name: "GRDB", package: "GRDB.swift")
let yams = Target.Dependency.product(name: "Yams", package: "Yams")

let package = Package(
    name: "tessera",
    products: [.executable(name: "tessera", targets: ["tessera"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.0"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.3.0"),
        .package(url: "https://github.com/apple/swift-http-types", from: "1.0.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.0"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.0"),
        .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
    ],
    targets: [
        .systemLibrary(name: "CLibCrypto", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
        .systemLibrary(name: "CLZ4", pkgConfig: "liblz4", providers: [.apt(["liblz4-dev"])]),
        .target(name: "CLinux"),
        .target(name: "CLoadingRules", exclude: ["transformers.txt"]),
        .target(name: "CStatusPage", exclude: ["openapi.json", "page.html"]),
        .target(name: "CTensorKernels"),
        module("Core", uses: ["CLibCrypto", "CLinux"]),
        module("TensorKernels", uses: ["CTensorKernels", "Core"]),
        module("LinearAlgebra", uses: ["Core", "TensorKernels"]),
        module("Checkpoints", uses: ["Core"]),
        module("Operators", uses: ["Core", "TensorKernels", "LinearAlgebra"]),
        module("TaskVectors", uses: ["Core", "TensorKernels", "Checkpoints", "Operators"]),
        module("Work", uses: ["Core", "TensorKernels", "LinearAlgebra", "Checkpoints", "Operators", "TaskVectors"]),
        module("Protocol", uses: ["CLZ4", "Core", "TensorKernels", "Operators", "TaskVectors", "Work", nioCore]),
        module("Transport", uses: ["Core", "Protocol", nioCore, nioPosix, nioSSL, nioTLS]),
        module(
            "Worker",
            uses: [
                "Core", "TensorKernels", "Checkpoints", "Operators", "TaskVectors", "Work", "Protocol", "Transport", nioCore,
                nioPosix, logging,
                lifecycle,
            ]),
        module("Recipes", uses: ["Core", "Operators", yams]),
        module("Tokenizers", uses: ["Core", "Checkpoints", "Operators", "Recipes"]),
        module(
            "Planning",
            uses: [
                "CLoadingRules", "Core", "TensorKernels", "LinearAlgebra", "Checkpoints", "Operators", "TaskVectors", "Work",
                "Recipes",
                "Tokenizers", heaps,
            ]),
        module("Journal", uses: ["Core", "Work", "Protocol", grdb]),
        module(
            "Coordinator",
            uses: [
                "CLinux", "CStatusPage", "Core", "TensorKernels", "Checkpoints", "Operators", "TaskVectors", "Work", "Protocol",
                "Transport", "Planning", "Journal", nioCore, nioPosix, nioHTTP1, logging, hummingbird, hummingbirdCore, httpTypes,
                lifecycle,
                heaps,
            ]),
        module(
            "Engine",
            uses: [
                "CLinux", "Core", "TensorKernels", "Checkpoints", "Operators", "TaskVectors", "Work", "Protocol", "Transport",
                "Worker",
                "Planning", "Journal", "Coordinator", logging,
            ]),
        module(
            "TesseraCLI",
            uses: [
                "CLinux", "Core", "Checkpoints", "Operators", "TaskVectors", "Work", "Recipes", "Protocol", "Worker", "Planning",
                "Journal", "Coordinator", "Engine", logging, lifecycle, unixSignals, argumentParser, yams,
            ]),
        module(
            "Demo", uses: ["Core", "Checkpoints", "Protocol", "Engine", "TesseraCLI", argumentParser],
            resources: [.copy("Resources/digits")]),
        .executableTarget(
            name: "tessera", dependencies: ["Core", "LinearAlgebra", "Recipes", "Engine", "TesseraCLI", "Demo", argumentParser],
            swiftSettings: strict),

        .target(name: "TestProcess", path: "Tests/Process"),
        .target(
            name: "TestSupport",
            dependencies: [
                "TestProcess", "Core", "TensorKernels", "Checkpoints", "Operators", "Recipes", "Protocol", "Transport", "Journal",
                logging, nioCore, nioEmbedded,
            ],
            path: "Tests/Support",
            swiftSettings: strict),
        .target(
            name: "FuzzTargets",
            dependencies: [
                "Core", "TensorKernels", "Checkpoints", "Operators", "TaskVectors", "Work", "Protocol", "Recipes", "Tokenizers",
                "Planning", "Coordinator", "TesseraCLI", argumentParser, lifecycle, logging, nioCore,
            ],
            path: "Tests/Fuzzing/Targets", swiftSettings: strict),
        tests(of: "House", uses: ["TestSupport"]),
        tests(of: "Core", uses: ["Core", "TestSupport"]),
        tests(of: "Checkpoints", uses: ["Core", "Checkpoints", "TestSupport"], exclude: ["Fixtures"]),
        tests(of: "TensorKernels", uses: ["Core", "TensorKernels", "TestSupport"]),
        tests(of: "LinearAlgebra", uses: ["Core", "LinearAlgebra", "Operators", "TestSupport"]),
        tests(of: "Operators", uses: ["Core", "TensorKernels", "LinearAlgebra", "Operators", "TestSupport"]),
        tests(of: "TaskVectors", uses: ["Core", "TensorKernels", "Operators", "TaskVectors", "TestSupport"]),
        tests(of: "Work", uses: ["Core", "TensorKernels", "LinearAlgebra", "Operators", "TaskVectors", "Work", "TestSupport"]),
        tests(
            of: "Protocol",
            uses: ["Core", "TensorKernels", "Operators", "TaskVectors", "Work", "Protocol", "TestSupport", nioCore]),
        tests(
            of: "TesseraCLI",
            uses: ["Core", "Operators", "Protocol", "Engine", "TesseraCLI", "TestSupport", argumentParser, logging]),
        tests(
            of: "Transport", uses: ["Core", "Protocol", "Transport", "TestSupport", nioCore, nioPosix, nioEmbedded, nioSSL]),
        tests(
            of: "Worker",
            uses: [
                "Core", "TensorKernels", "Operators", "TaskVectors", "Work", "Protocol", "Transport", "Worker",
                "TestSupport", logging, nioCore,
            ]),
        tests(of: "Recipes", uses: ["Core", "Recipes", "TestSupport"]),
        tests(
            of: "Tokenizers", uses: ["Core", "Checkpoints", "Operators", "Recipes", "Tokenizers", "TestSupport"]),
        tests(
            of: "Planning",
            uses: [
                "Core", "TensorKernels", "Checkpoints", "Operators", "TaskVectors", "Work", "Recipes", "Planning", "TestSupport",
            ]),
        tests(
            of: "Journal", uses: ["Core", "Operators", "TaskVectors", "Work", "Protocol", "Journal", "TestSupport"],
            exclude: ["Fixtures"]),
        tests(
            of: "Coordinator",
            uses: [
                "Core", "Checkpoints", "Operators", "TaskVectors", "Work", "Protocol", "Transport", "Planning", "Journal",
                "Coordinator", "TestSupport", logging, nioCore, nioEmbedded, nioHTTP1, lifecycle,
            ]),
        tests(of: "Engine", uses: ["Core", "Protocol", "Transport", "Engine", "TestSupport", nioCore]),
        tests(
            of: "Simulation",
            uses: [
                "Core", "Operators", "Work", "Protocol", "Transport", "Worker", "Journal", "Coordinator", "Engine", "TestSupport",
                logging, nioCore, nioEmbedded, heaps, lifecycleTestKit,
            ]),
        tests(
            of: "EndToEnd", uses: ["Core", "Operators", "Protocol", "Journal", "TestSupport", "tessera", nioCore],
            exclude: ["RecordedOutputs.json"]),
        tests(
            of: "Fuzzing", uses: ["FuzzTargets", "TestSupport"],
            exclude: ["CFuzzer", "Driver", "Models", "Seeds", "Targets", "make_seeds.py", "run"]),
    ]
        + (fuzzer.map { library in
            [
                .systemLibrary(name: "CFuzzer", path: "Tests/Fuzzing/CFuzzer"),
                .executableTarget(
                    name: "Fuzz", dependencies: ["CFuzzer", "FuzzTargets"], path: "Tests/Fuzzing/Driver", swiftSettings: strict,
                    linkerSettings: [.unsafeFlags([library, "-lstdc++", "-lm"])]),
            ]
        } ?? [])
)
