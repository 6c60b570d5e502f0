package import Core
import Glibc
import TensorKernels

/// The system's OpenBLAS, with the LAPACK that it contains. The only file that knows the library.
///
/// OpenBLAS chooses loops by the processor, and each choice adds in another order. The choice is made once, while the library is
/// loaded, and an environment variable decides it. The library is therefore loaded at the first use, after the variable is set,
/// and not linked.
struct OpenBLAS: Sendable {
    typealias Gemm =
        @Sendable @convention(c) (
            _ order: Int32, _ transposeA: Int32, _ transposeB: Int32, _ m: Int32, _ n: Int32, _ k: Int32, _ alpha: Double,
            UnsafePointer<Double>, Int32, UnsafePointer<Double>, Int32, _ beta: Double, UnsafeMutablePointer<Double>, Int32
        ) -> Void
    typealias Syrk =
        @Sendable @convention(c) (
            _ order: Int32, _ triangle: Int32, _ transpose: Int32, _ n: Int32, _ k: Int32, _ alpha: Double, UnsafePointer<Double>,
            Int32, _ beta: Double, UnsafeMutablePointer<Double>, Int32
        ) -> Void
    typealias Integer = UnsafeMutablePointer<Int32>
    typealias Numbers = UnsafeMutablePointer<Double>
    typealias Letter = UnsafePointer<CChar>
    /// Fortran passes the lengths of texts after all other arguments.
    typealias Gesdd =
        @Sendable @convention(c) (
            Letter, Integer, Integer, Numbers, Integer, Numbers, Numbers, Integer, Numbers, Integer, Numbers, Integer, Integer,
            Integer, Int
        ) -> Void
    typealias Syevd =
        @Sendable @convention(c) (
            Letter, Letter, Integer, Numbers, Integer, Numbers, Numbers, Integer, Integer, Integer, Integer, Int, Int
        ) -> Void
    typealias Sytrd =
        @Sendable @convention(c) (
            Letter, Integer, Numbers, Integer, Numbers, Numbers, Numbers, Numbers, Integer, Integer, Int
        ) -> Void
    typealias Stedc =
        @Sendable @convention(c) (
            Letter, Integer, Numbers, Numbers, Numbers, Integer, Numbers, Integer, Integer, Integer, Integer, Int
        ) -> Void
    typealias Ormtr =
        @Sendable @convention(c) (
            Letter, Letter, Letter, Integer, Integer, Numbers, Integer, Numbers, Numbers, Integer, Numbers, Integer, Integer, Int,
            Int, Int
        ) -> Void
    typealias Gesv = @Sendable @convention(c) (Integer, Integer, Numbers, Integer, Integer, Numbers, Integer, Integer) -> Void

    typealias Posv =
        @Sendable @convention(c) (Letter, Integer, Integer, Numbers, Integer, Numbers, Integer, Integer, Int) -> Void

    let gemm: Gemm
    let syrk: Syrk
    let gesdd: Gesdd
    let syevd: Syevd
    let sytrd: Sytrd
    let stedc: Stedc
    let ormtr: Ormtr
    let gesv: Gesv
    let posv: Posv
    /// Names everything that decides the bits of a result: library, version, loops, and how they are used.
    let identity: String

    /// Numbers the way in which this program uses the library. Raise it with every change of a decomposition, or of a method on
    /// whole matrices, after which the same matrices may give other bits.
    private static let revision = 2

    /// The loops that every processor of an architecture uses, and the name under which the library then reports them.
    #if arch(x86_64)
        private static let coreType = "Haswell"
    #else
        private static let coreType = "armv8"
    #endif

    private static let library = "libopenblas.so.0"

    static let loaded: Result<OpenBLAS, TesseraError> = Result { () throws(TesseraError) in try OpenBLAS() }

    private init() throws(TesseraError) {
        #if arch(x86_64)
            // Haswell's loops need AVX2 and FMA, as the second level of our own kernels does.
            guard Kernels.available.count > 1 else {
                throw TesseraError(
                    .inputMissing, "this processor lacks AVX2 and FMA, which methods on whole matrices need",
                    advice: "run these methods on other hosts")
            }
        #endif
        Self.pinLoops()
        guard let handle = dlopen(Self.library, RTLD_NOW | RTLD_LOCAL) else {
            throw TesseraError(
                .inputMissing, "\(Self.library) cannot be loaded: \(dlerror().map { String(cString: $0) } ?? "no reason given")",
                advice: "install OpenBLAS (Debian: libopenblas0-pthread), which methods on whole matrices need")
        }
        func find<Function>(_ name: String, _ type: Function.Type) throws(TesseraError) -> Function {
            guard let symbol = dlsym(handle, name) else {
                throw TesseraError(
                    .inputMissing, "\(Self.library) has no function \(name)",
                    advice: "install the OpenBLAS of the distribution, which contains LAPACK and has 32-bit integers")
            }
            return unsafeBitCast(symbol, to: type)
        }
        gemm = try find("cblas_dgemm", Gemm.self)
        syrk = try find("cblas_dsyrk", Syrk.self)
        gesdd = try find("dgesdd_", Gesdd.self)
        syevd = try find("dsyevd_", Syevd.self)
        sytrd = try find("dsytrd_", Sytrd.self)
        stedc = try find("dstedc_", Stedc.self)
        ormtr = try find("dormtr_", Ormtr.self)
        gesv = try find("dgesv_", Gesv.self)
        posv = try find("dposv_", Posv.self)
        typealias Text = @convention(c) () -> UnsafePointer<CChar>?
        let core = try find("openblas_get_corename", Text.self)().map { String(cString: $0) } ?? "unknown"
        let config = try find("openblas_get_config", Text.self)().map { String(cString: $0) } ?? "unknown"
        guard core.lowercased() == Self.coreType.lowercased() else {
            throw TesseraError(
                .inputMissing, "OpenBLAS computes with the loops of \(core) in place of \(Self.coreType)",
                advice: "install a build of OpenBLAS with loops for several processors, as distributions have it")
        }
        try find("openblas_set_num_threads", (@convention(c) (Int32) -> Void).self)(1)
        identity = config.split(separator: " ").prefix(2).joined(separator: " ") + " \(core) \(Self.revision)"
    }

    /// Sets what OpenBLAS looks at while it is loaded. Call this before the process has threads, which may read the environment.
    static func pinLoops() {
        for (name, value) in [("OPENBLAS_CORETYPE", coreType), ("OPENBLAS_NUM_THREADS", "1")]
        where getenv(name).map({ String(cString: $0) }) != value { setenv(name, value, 1) }
    }
}

/// What the rest of the program asks of the library as a whole.
package enum LinearAlgebra {
    /// Names the library and everything else that decides the bits of a result. Processes of the same identity compute the same.
    ///
    /// - Throws: `inputMissing` when this host has no suitable library or processor.
    package static func identity() throws(TesseraError) -> String { try OpenBLAS.loaded.get().identity }

    /// Must be called before the process has threads.
    package static func prepare() { OpenBLAS.pinLoops() }

    /// Bytes that the library holds for itself during a call.
    package static let bufferBytes = 32 << 20
}
