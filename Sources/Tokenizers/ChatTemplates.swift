package import Core
package import Recipes

/// Chat templates: the models' own and the built-in ones.
package enum ChatTemplates {
    static let fileName = "chat_template.jinja"
    static let legacyName = "chat_template.json"
    private static let key = "chat_template"

    /// The template selected by the recipe's setting.
    ///
    /// - Parameters:
    ///   - directories: of all models, in file order.
    ///   - files: where the models' own are read.
    /// - Returns: `nil` when it is to be the models' own and none has one.
    /// - Throws: `badData` when a model's tokenizer_config.json is none.
    package static func template(
        _ setting: ChatTemplateSetting, directories: [String], in files: any InputFiles
    ) throws(TesseraError) -> String? {
        switch setting {
        case .literal(let text): return text
        case .named(let name): return builtIn(name)
        case .auto:
            var found: [(text: ExactText, count: Int)] = []
            for directory in directories {
                guard let text = try own(directory, files).map({ ExactText(trimmed($0)) }) else { continue }
                if let index = found.firstIndex(where: { $0.text == text }) {
                    found[index].count += 1
                } else {
                    found.append((text, 1))
                }
            }
            // The most frequent template; of several, the first.
            let most = found.map(\.count).max()
            return found.first { $0.count == most }?.text.string
        }
    }

    /// A model's own: the file of newer checkpoints, else the key of its tokenizer_config.json, where of several the `default`
    /// counts.
    static func own(_ directory: String, _ files: any InputFiles) throws(TesseraError) -> String? {
        let path = "\(directory)/\(fileName)"
        if try files.exists(path) { return String(decoding: try files.read(path, maxBytes: Tokenizer.byteLimit), as: UTF8.self) }
        for name in [Tokenizer.configName, legacyName] where try files.exists("\(directory)/\(name)") {
            let config = try JSONText(
                try files.read("\(directory)/\(name)", maxBytes: Tokenizer.byteLimit), file: "\(directory)/\(name)")
            if let text = config.string([key]) { return text }
            if let list = config.json([key]), list.utf8.first == UInt8(ascii: "["), let text = try defaultTemplate(list) {
                return text
            }
        }
        return nil
    }

    /// `[{"name": "default", "template": "…"}, …]`
    private static func defaultTemplate(_ list: String) throws(TesseraError) -> String? {
        var scanner = JSONScanner(Array(list.utf8), file: nil)
        var found: String?
        try scanner.array { scanner throws(TesseraError) in
            let entry = try JSONText(scanner.bytes(of: try scanner.value()))
            if entry.string(["name"]) == "default" { found = entry.string(["template"]) ?? found }
        }
        return found
    }

    private static func trimmed(_ text: String) -> String {
        let isText = { (scalar: Unicode.Scalar) in !scalar.properties.isWhitespace }
        guard let first = text.unicodeScalars.firstIndex(where: isText), let last = text.unicodeScalars.lastIndex(where: isText)
        else { return "" }
        return String(text.unicodeScalars[first...last])
    }

    // MARK: Built-in templates

    static func builtIn(_ name: ChatTemplateSetting.Name) -> String {
        switch name {
        case .alpaca:
            return #"""
                {%- if messages and messages[0]['role'] == 'system' -%}
                {%- set system = messages[0]['content'] -%}{%- set turns = messages[1:] -%}
                {%- else -%}
                {%- set system = 'Below is an instruction that describes a task. Write a response that \#
                appropriately completes the request.' -%}
                {%- set turns = messages -%}
                {%- endif -%}
                {{- system + '\n\n' -}}
                {%- for message in turns -%}
                {%- if message['role'] == 'user' -%}
                {{- '### Instruction:\n' + message['content'] + '\n\n' -}}
                {%- elif message['role'] == 'assistant' -%}
                {{- '### Response:\n' + message['content'] + '\n\n' -}}
                {%- endif -%}
                {%- endfor -%}
                {%- if add_generation_prompt -%}{{- '### Response:\n' -}}{%- endif -%}
                """#
        case .chatml:
            return #"""
                {%- for message in messages -%}
                {{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' -}}
                {%- endfor -%}
                {%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}
                """#
        case .exaone:
            return #"""
                {%- if not messages or messages[0]['role'] != 'system' -%}{{- '[|system|][|endofturn|]\n' -}}{%- endif -%}
                {%- for message in messages -%}
                {{- '[|' + message['role'] + '|]' + message['content'] -}}
                {%- if message['role'] != 'user' -%}{{- '[|endofturn|]' -}}{%- endif -%}
                {{- '\n' -}}
                {%- endfor -%}
                {%- if add_generation_prompt -%}{{- '[|assistant|]' -}}{%- endif -%}
                """#
        case .llama3:
            return #"""
                {{- bos_token -}}
                {%- for message in messages -%}
                {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + \#
                message['content'] | trim + '<|eot_id|>' -}}
                {%- endfor -%}
                {%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}{%- endif -%}
                """#
        case .mistral:
            return #"""
                {%- set ns = namespace(system='') -%}
                {{- bos_token -}}
                {%- for message in messages -%}
                {%- if message['role'] == 'system' -%}
                {%- set ns.system = message['content'] + '\n\n' -%}
                {%- elif message['role'] == 'user' -%}
                {{- '[INST] ' + ns.system + message['content'] + ' [/INST]' -}}{%- set ns.system = '' -%}
                {%- elif message['role'] == 'assistant' -%}
                {{- ' ' + message['content'] + eos_token -}}
                {%- endif -%}
                {%- endfor -%}
                """#
        }
    }
}
