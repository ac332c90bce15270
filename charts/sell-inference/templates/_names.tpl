{{- define "inference.name" -}}
{{ required "values-offer.yaml needs a name" .Values.name }}-inference
{{- end }}

{{- define "inference.selector" -}}
app.kubernetes.io/name: obol-inference
app.kubernetes.io/instance: {{ .Values.name | quote }}
{{- end }}

{{- define "inference.labels" -}}
{{ include "inference.selector" . }}
app.kubernetes.io/part-of: obol
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- end }}

{{- /* The same file as the slice has, whatever else the values hold. */}}
{{- define "inference.offer" -}}
{{ dict "name" .Values.name "spec" .Values.spec | toYaml }}
{{- end }}
